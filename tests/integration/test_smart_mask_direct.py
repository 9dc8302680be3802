"""smart_mask and fastsam as direct Triton clients see them, without the frontend."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

from .direct_client import Tensors, tensors
from .mask_scenes import enlarged, iou, mask_of, scene

if TYPE_CHECKING:
    import tritonclient.grpc.aio as grpc_aio

    from .server import Server


async def ask(
    triton: grpc_aio.InferenceServerClient, request_id: str = "", **inputs: Any
) -> Tensors:
    """Return the first element of every output, and all of POINTS_MISSED."""
    result = await triton.infer(
        "smart_mask", tensors(inputs), request_id=request_id, client_timeout=120
    )
    arrays = {tensor.name: result.as_numpy(tensor.name) for tensor in result.get_response().outputs}
    return {name: a.tolist() if name == "POINTS_MISSED" else a[0] for name, a in arrays.items()}


async def state(triton: grpc_aio.InferenceServerClient) -> dict[str, Any]:
    answer = await ask(triton, CANCEL="")
    assert set(answer) == {"INFO"}
    found: dict[str, Any] = json.loads(answer["INFO"])
    return found


async def test_a_direct_client_gets_all_outputs(triton: grpc_aio.InferenceServerClient) -> None:
    drawn = scene(400)
    points = np.array([drawn.middle], np.float32)
    answer = await ask(triton, IMAGE=drawn.png, POINTS=points)
    assert set(answer) == {"MASK_IMAGE", "IMAGE_ID", "SCORE", "CACHED", "POINTS_MISSED", "INFO"}
    assert answer["IMAGE_ID"].decode() == hashlib.sha256(drawn.png).hexdigest()
    assert 0.25 < answer["SCORE"] <= 1
    assert not answer["CACHED"]
    assert answer["POINTS_MISSED"] == []
    assert iou(mask_of(answer["MASK_IMAGE"]), drawn.truth) > 0.85
    info = json.loads(answer["INFO"])
    assert info["detections"] >= 1
    assert np.abs(np.array(info["box"]) - drawn.box).max() < 30
    assert info["timings"]["network"] > 0
    again = await ask(triton, IMAGE_ID=answer["IMAGE_ID"].decode(), POINTS=points)
    assert again["CACHED"]
    assert again["MASK_IMAGE"] == answer["MASK_IMAGE"]


async def test_boxes_labels_and_options_are_read(triton: grpc_aio.InferenceServerClient) -> None:
    drawn = scene(401)
    answer = await ask(
        triton,
        IMAGE=drawn.png,
        POINTS=np.array([drawn.middle, [2, 2]], np.float32),
        POINT_LABELS=np.array([1, 0], np.int32),
        USE_BLUR=np.array([True]),
        BORDER_ADJUSTMENT=np.array([8], np.int32),
    )
    plain = await ask(triton, IMAGE=drawn.png, BBOX=np.array(drawn.box, np.float32))
    assert mask_of(answer["MASK_IMAGE"]).sum() > mask_of(plain["MASK_IMAGE"]).sum()


async def test_the_http_endpoint_of_triton_works_too(server: Server) -> None:
    """Plain HTTP reaches a model with one response per request; no stream is needed."""
    ping = {"inputs": [{"name": "CANCEL", "datatype": "BYTES", "shape": [1], "data": [""]}]}
    async with httpx.AsyncClient(base_url=server.triton_http_url, timeout=30) as client:
        response = await client.post("/v2/models/smart_mask/infer", json=ping)
    assert response.status_code == 200
    (output,) = response.json()["outputs"]
    assert json.loads(output["data"][0])["running"] == 0


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"POINTS": np.zeros((1, 2), np.float32)}, "[INVALID_ARGUMENT] IMAGE: either"),
        ({"IMAGE": b"no picture", "AUTO_DETECT": np.array([True])}, "[INVALID_ARGUMENT] IMAGE: I"),
        ({"IMAGE": scene(0, 64).png}, "[INVALID_ARGUMENT] POINTS: POINTS, BBOX"),
        ({"IMAGE_ID": "0" * 64, "AUTO_DETECT": np.array([True])}, "[NOT_FOUND] IMAGE_ID: not"),
        ({"IMAGE_ID": "x", "AUTO_DETECT": np.array([True])}, "[INVALID_ARGUMENT] IMAGE_ID: must"),
        (
            {"IMAGE": scene(0, 64).png, "BBOX": np.array([5, 5, 1, 1], np.float32)},
            "[INVALID_ARGUMENT] BBOX: must",
        ),
        ({"CANCEL": "x", "IMAGE": b"y"}, "[INVALID_ARGUMENT] CANCEL: must be the only input"),
        # Triton's own checks.
        ({"POINTS": np.zeros((1, 3), np.float32)}, "POINTS"),
        (
            {"IMAGE": scene(0, 64).png, "AUTO_DETECT": np.array([True]), "BOX": "x"},
            "unexpected inference input 'BOX'",
        ),
    ],
)
async def test_a_bad_request_names_its_input(
    triton: grpc_aio.InferenceServerClient, inputs: Tensors, text: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        await ask(triton, **inputs)
    assert text in str(caught.value)
    assert (await state(triton))["running"] == 0


async def start_many(
    triton: grpc_aio.InferenceServerClient, prefix: str
) -> dict[str, asyncio.Task[Tensors]]:
    """Start requests that take seconds together; return them by their ids once one runs."""
    large = enlarged(scene(402).png, 2500)
    requests = {
        name: asyncio.create_task(
            ask(triton, name, IMAGE=large + name.encode(), AUTO_DETECT=np.array([True]))
        )
        for name in (f"{prefix}-{number}" for number in range(60))
    }
    async with asyncio.timeout(60):
        while not (await state(triton))["running"]:
            await asyncio.sleep(0.01)
    return requests


async def cancel(triton: grpc_aio.InferenceServerClient, name: str) -> bool:
    """Cancel a request; tell whether it was found."""
    found: bool = json.loads((await ask(triton, CANCEL=name))["INFO"])["cancelled"]
    return found


async def test_a_cancel_by_id_ends_a_request(triton: grpc_aio.InferenceServerClient) -> None:
    requests = await start_many(triton, "direct")
    found = [await cancel(triton, name) for name in requests]
    results = await asyncio.gather(*requests.values(), return_exceptions=True)
    for was_found, result in zip(found, results, strict=True):
        assert isinstance(result, InferenceServerException) == was_found
        if was_found:
            assert "[CANCELLED] the request was cancelled" in str(result)
    assert any(found)
    after = await state(triton)
    assert (after["waiting"], after["running"], after["cancelled"]) == (0, 0, False)


async def test_a_live_request_id_is_refused(triton: grpc_aio.InferenceServerClient) -> None:
    ahead = await start_many(triton, "ahead")
    inputs: Tensors = {"IMAGE": scene(403).png, "AUTO_DETECT": np.array([True])}
    twins = [asyncio.create_task(ask(triton, "twice", **inputs)) for _ in range(2)]
    await asyncio.wait(twins, return_when=asyncio.FIRST_COMPLETED)
    for name in ahead:
        await cancel(triton, name)
    await asyncio.gather(*ahead.values(), return_exceptions=True)
    results = await asyncio.gather(*twins, return_exceptions=True)
    failures = [result for result in results if isinstance(result, Exception)]
    assert len(failures) == 1
    assert "[INVALID_ARGUMENT] request_id: is that of a request" in str(failures[0])


async def test_the_cache_tells_its_counts(triton: grpc_aio.InferenceServerClient) -> None:
    before = (await state(triton))["cache"]
    drawn = scene(404)
    for _ in range(3):
        await ask(triton, IMAGE=drawn.png, AUTO_DETECT=np.array([True]))
    after = (await state(triton))["cache"]
    assert after["misses"] - before["misses"] == 1
    assert after["hits"] - before["hits"] == 2
    assert 0 < after["bytes"] <= after["max_bytes"]


async def test_clients_that_leave_free_the_model(triton: grpc_aio.InferenceServerClient) -> None:
    """Of many requests whose clients have left, those that wait never reach the network."""
    large = enlarged(scene(405).png, 2500)
    before = (await state(triton))["cache"]["misses"]

    async def leave(number: int) -> None:
        inputs = {"IMAGE": large + bytes([number]), "AUTO_DETECT": np.array([True])}
        await triton.infer("smart_mask", tensors(inputs), client_timeout=0.15)

    ends = await asyncio.gather(*map(leave, range(40)), return_exceptions=True)
    # The first may be answered in time.
    left = [str(end) for end in ends if end is not None]
    assert len(left) > 30
    assert all("Deadline" in end for end in left)
    async with asyncio.timeout(60):
        while (now := await state(triton))["waiting"] + now["running"]:
            await asyncio.sleep(0.02)
    assert now["cache"]["misses"] - before < 30


async def test_millions_of_points_are_refused_at_once(
    triton: grpc_aio.InferenceServerClient,
) -> None:
    points = np.zeros((4_000_000, 2), np.float32)
    started = time.monotonic()
    with pytest.raises(InferenceServerException, match="POINTS: 8000000 elements, at most 512"):
        await ask(triton, IMAGE=scene(0, 64).png, POINTS=points)
    assert time.monotonic() - started < 20


async def test_a_full_guidance_mask_of_a_large_picture_takes_no_longer(
    triton: grpc_aio.InferenceServerClient,
) -> None:
    large = enlarged(scene(406).png, 5000)
    white = io.BytesIO()
    Image.new("L", (1, 1), 255).save(white, "PNG")
    first = await ask(triton, IMAGE=large, AUTO_DETECT=np.array([True]))
    image_id = first["IMAGE_ID"].decode()

    async def select_s(**guidance: Any) -> float:
        answer = await ask(triton, IMAGE_ID=image_id, **guidance)
        return float(json.loads(answer["INFO"])["timings"]["select"])

    middle = np.array([[2500, 2500]], np.float32)  # what is taken of the mask
    plain = [await select_s(POINTS=middle) for _ in range(3)]
    guided = [await select_s(MASK=white.getvalue()) for _ in range(3)]
    assert min(guided) < 10 * min(plain) + 0.1, (plain, guided)


async def test_fastsam_answers_batches_as_single_images(
    triton: grpc_aio.InferenceServerClient, server: Server
) -> None:
    config = (await triton.get_model_config("fastsam")).config
    assert config.max_batch_size >= 2
    assert config.HasField("dynamic_batching")
    side = 320
    images = np.random.default_rng(0).random((3, 3, side, side), dtype=np.float32)

    async def run(batch: Any) -> list[Any]:
        result = await triton.infer("fastsam", tensors({"images": batch}), client_timeout=30)
        return [result.as_numpy(name) for name in ("output0", "output1")]

    together = await run(images)
    assert together[0].shape[:2] == (3, 37)
    assert together[1].shape == (3, 32, side // 4, side // 4)
    alone = await asyncio.gather(*(run(images[i : i + 1]) for i in range(3)))
    for index, outputs in enumerate(alone):
        for single, batched in zip(outputs, together, strict=True):
            assert (single[0] == batched[index]).all()
    with pytest.raises(InferenceServerException, match="images"):
        await run(images[:, :, :64, :64].copy())
