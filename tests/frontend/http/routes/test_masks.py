from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from grpc import StatusCode
from PIL import Image

from frontend.masks import early_cancels
from tests.fakes.bad_masks import mask_request
from tests.fakes.mask_model import MASK, NOTHING_FOUND
from tests.fakes.pictures import b64, encoded, plain, plain_mask, png
from tests.frontend.eventually import eventually

if TYPE_CHECKING:
    import httpx

    from tests.fakes.triton_server import FakeTriton
    from tests.fakes.web_client import WebClient
    from tests.frontend.conftest import Serve

PICTURE_ID = hashlib.sha256(png()).hexdigest()


async def smart_mask(client: WebClient, **changes: Any) -> httpx.Response:
    return await client.http.post("/api/smart-mask", json=mask_request(**changes))


async def answered(client: WebClient, **changes: Any) -> dict[str, Any]:
    answer = await smart_mask(client, **changes)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def until_admitted(client: WebClient, count: int) -> None:
    """Return once the server has so many mask requests."""
    async with asyncio.timeout(30):
        while True:
            services = (await client.http.get("/api/system/health")).json()["services"]
            if services["segmentation"]["waiting"] + services["segmentation"]["running"] == count:
                return


async def test_a_mask_has_the_contracts_keys(client: WebClient) -> None:
    body = await answered(client, request_id="click")
    assert body == {
        "success": True,
        "mask_base64": b64(MASK),
        "image_id": PICTURE_ID,
        "request_id": "click",
        "error": None,
        "score": 0.75,
        "cached": False,
        "points_missed": [1],
        "timings": {"select": 0.001},
        "warnings": [],
    }
    assert len({(await answered(client))["request_id"] for _ in range(2)}) == 2


@pytest.mark.parametrize("again", [{}, {"image": None, "image_id": PICTURE_ID}], ids=str)
async def test_a_picture_is_sent_to_the_model_once(
    client: WebClient, triton: FakeTriton, again: dict[str, Any]
) -> None:
    assert not (await answered(client))["cached"]
    assert (await answered(client, **again))["cached"]
    assert ["IMAGE" in inputs for inputs in triton.masks.requests] == [True, False]


async def test_a_picture_wins_over_an_id(client: WebClient, triton: FakeTriton) -> None:
    assert (await answered(client, image_id="nobody"))["image_id"] == PICTURE_ID


async def test_an_expired_id_is_404_and_sending_the_picture_helps(
    serve: Serve, triton: FakeTriton
) -> None:
    async with serve(image_store_ttl_s=0.05) as client:
        await answered(client)
        await asyncio.sleep(0.2)
        assert triton.masks.known  # the model's memory does not count
        answer = await smart_mask(client, image=None, image_id=PICTURE_ID)
        assert answer.status_code == 404
        assert answer.json() == {"detail": f"Image ID not found or expired: {PICTURE_ID}"}
        await answered(client)


async def test_an_id_outlives_the_models_memory(client: WebClient, triton: FakeTriton) -> None:
    await answered(client)
    triton.masks.known.clear()
    body = await answered(client, image=None, image_id=PICTURE_ID)
    assert (body["image_id"], body["cached"]) == (PICTURE_ID, False)


async def test_what_the_known_client_sends(client: WebClient, triton: FakeTriton) -> None:
    await answered(
        client,
        image=f"data:image/png;base64,{b64(png())}",
        image_id=None,
        points=[[1, 2.5], [3, 4]],
        bbox=[1, 4, 3, 4],  # around a straight stroke
        border_adjustment=5,
        use_blur=True,
        auto_detect=False,
        mask="",
        mask_image="legacy",
    )
    assert triton.masks.requests == [
        {
            "IMAGE": [plain(png())],
            "POINTS": [1.0, 2.5, 3.0, 4.0],
            "AUTO_DETECT": [False],
            "BORDER_ADJUSTMENT": [5],
            "USE_BLUR": [True],
        }
    ]


@pytest.mark.parametrize(
    ("prompt", "tensors"),
    [
        ({"bbox": [1, 2, 3.5, 4]}, {"BBOX": [1.0, 2.0, 3.5, 4.0]}),
        ({"mask": b64(encoded("GIF", mode="L"))}, {"MASK": [plain_mask(encoded("GIF", mode="L"))]}),
        ({"auto_detect": True}, {"AUTO_DETECT": [True]}),
        (
            {"points": [[1, 2], [-3, 4]], "point_labels": [0, 1.0]},
            {"POINTS": [1.0, 2.0, -3.0, 4.0], "POINT_LABELS": [0, 1]},
        ),
    ],
    ids=str,
)
async def test_every_prompt_reaches_the_model(
    client: WebClient, triton: FakeTriton, prompt: dict[str, Any], tensors: dict[str, Any]
) -> None:
    nothing = {"points": None, "auto_detect": None, "border_adjustment": None, "use_blur": None}
    await answered(client, **nothing | prompt)
    assert triton.masks.requests == [{"IMAGE": [plain(png())]} | tensors]


@pytest.mark.parametrize("model_type", ["segmentation", "fastsam", None])
async def test_both_names_of_the_model(client: WebClient, model_type: str | None) -> None:
    await answered(client, model_type=model_type)


@pytest.mark.parametrize(
    ("text", "status", "detail"),
    [
        (NOTHING_FOUND, 400, "FastSAM did not generate any masks: no object is at [1, 1]"),
        ("[INVALID_ARGUMENT] IMAGE: not a PNG file", 400, "Failed to cache image: not a PNG file"),
        ("[INVALID_ARGUMENT] MASK: damaged", 400, "mask: damaged"),
        ("[UNAVAILABLE] 64 requests are waiting already", 503, "64 requests are waiting already"),
        ("[INTERNAL] see the log", 500, "Mask generation failed: see the log"),
    ],
)
async def test_what_the_model_refuses(
    client: WebClient, triton: FakeTriton, text: str, status: int, detail: str
) -> None:
    triton.masks.behaviour.refuse = (StatusCode.UNKNOWN, text)
    answer = await smart_mask(client)
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize("path", ["/api/smart-mask", "/api/smart-mask/detect"])
async def test_without_triton_masks_are_503_and_edits_are_not_asked(
    client: WebClient, triton: FakeTriton, path: str
) -> None:
    triton.masks.behaviour.dead = True
    for _ in range(2):
        answer = await client.http.post(path, json=mask_request())
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json() == {"detail": "the model's process has died"}
    assert (await client.http.get("/readyz")).json() == answer.json()
    health = (await client.http.get("/api/system/health")).json()
    assert health["status"] == "degraded"
    assert health["services"]["segmentation"]["status"] == "unhealthy"
    assert health["services"]["generation"]["status"] == "healthy"
    await client.finish()


async def test_a_full_server_is_503(serve: Serve, triton: FakeTriton) -> None:
    triton.masks.behaviour.delay_s = 60
    async with serve(max_masks_in_flight=1, max_masks_waiting=1, owner_fraction=1) as client:
        accepted = [asyncio.create_task(answered(client)) for _ in range(2)]
        await until_admitted(client, 2)
        answer = await smart_mask(client)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        triton.masks.release()
        await asyncio.gather(*accepted)


# --- cancelling ---


@pytest.mark.parametrize("in_flight", [1, 2], ids=["waiting", "running"])
async def test_a_cancelled_request_ends_as_cancelled(
    serve: Serve, triton: FakeTriton, in_flight: int
) -> None:
    triton.masks.behaviour.delay_s = 60
    async with serve(max_masks_in_flight=in_flight) as client:
        other = asyncio.create_task(answered(client, request_id="other"))
        await eventually(lambda: triton.masks.live == 1)
        ours = asyncio.create_task(smart_mask(client, request_id="click"))
        await until_admitted(client, 2)
        await eventually(lambda: triton.masks.live == in_flight)
        cancel = await client.http.post("/api/smart-mask/cancel/click")
        assert (cancel.status_code, cancel.json()) == (
            200,
            {
                "success": True,
                "message": "Smart mask request click marked for cancellation",
                "request_id": "click",
            },
        )
        answer = await ours
        assert not other.done()
        assert answer.status_code == 400
        assert answer.json() == {"detail": "Segmentation request click was cancelled"}
        triton.masks.release()
        await other
    assert len(triton.masks.cancelled) == in_flight - 1


# artokun/comfyui-mcp#1632, Comfy-Org/ComfyUI_frontend#7758: a cancel that overtakes its request
async def test_a_cancel_that_comes_first_is_kept_for_its_request(
    client: WebClient, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_cancels, "PATIENCE_S", 60.0)
    assert (await client.http.post("/api/smart-mask/cancel/click-7")).status_code == 200
    answer = await smart_mask(client, request_id="click-7")
    assert answer.status_code == 400
    assert answer.json() == {"detail": "Segmentation request click-7 was cancelled"}
    assert triton.masks.requests == []
    await answered(client, request_id="click-7")
    # This one is late: it means the request that was answered, not the next of its id.
    late = await client.http.post("/api/smart-mask/cancel/click-7")
    assert (late.status_code, late.json()) == (
        200,
        {
            "success": True,
            "message": "Smart mask request click-7 had already been answered",
            "request_id": "click-7",
        },
    )
    await answered(client, request_id="click-7")


# vllm-project/vllm-omni#1347, docker/model-runner#1041: work for clients that left
@pytest.mark.parametrize("path", ["/api/smart-mask", "/api/smart-mask/detect"])
async def test_clients_that_left_keep_no_place(serve: Serve, triton: FakeTriton, path: str) -> None:
    triton.masks.behaviour.delay_s = 60
    async with serve(max_masks_in_flight=1, max_masks_waiting=2, owner_fraction=1) as client:
        pictures = [encoded("PNG", (8, 8 + number)) for number in range(3)]
        leaving = [
            asyncio.create_task(
                client.http.post(path, json=mask_request(image=b64(picture), image_id=None))
            )
            for picture in pictures
        ]
        await until_admitted(client, 3)
        await eventually(lambda: triton.masks.live == 1)
        assert (await smart_mask(client)).status_code == 503
        at_model = triton.masks.requests[0]["IMAGE"]
        running = leaving[[[plain(picture)] for picture in pictures].index(at_model)]
        # Those that wait leave first: they would get the place that the other one gives back.
        for request in leaving:
            if request is not running:
                request.cancel()
        await until_admitted(client, 1)
        running.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await until_admitted(client, 0)
        triton.masks.behaviour.delay_s = 0
        await answered(client)
        assert len(triton.masks.requests) == 2
        await eventually(lambda: len(triton.masks.cancelled) == 1)
        assert triton.masks.cut == []


async def test_any_id_may_be_cancelled(client: WebClient) -> None:
    for request_id in ("nobody", "a%20b", "%E1%BA%A3nh", "x" * 200):
        answer = await client.http.post(f"/api/smart-mask/cancel/{request_id}")
        assert answer.status_code == 200
        assert answer.json()["success"] is True


async def test_a_live_id_is_refused_by_name(client: WebClient, triton: FakeTriton) -> None:
    triton.masks.behaviour.delay_s = 60
    first = asyncio.create_task(answered(client, request_id="click"))
    await eventually(lambda: triton.masks.live)
    answer = await smart_mask(client, request_id="click")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("request_id: click ")
    triton.masks.release()
    await first


# --- detect ---


async def detect(client: WebClient, **request: Any) -> httpx.Response:
    return await client.http.post("/api/smart-mask/detect", json=request)


async def test_detect_finds_by_itself(client: WebClient, triton: FakeTriton) -> None:
    answer = await detect(client, image=b64(png()), border_adjustment=3, points="ignored")
    assert answer.json() == {
        "success": True,
        "mask": b64(MASK),
        "error": None,
        "warnings": ["points is not a field of this request"],
    }
    assert triton.masks.requests == [
        {
            "IMAGE": [plain(png())],
            "AUTO_DETECT": [True],
            "BORDER_ADJUSTMENT": [3],
        }
    ]


@pytest.mark.parametrize(
    ("image", "refuse", "error"),
    [
        ({"image": "????"}, None, "Failed to cache image: not base64"),
        ({"image": "QUJD"}, None, "Failed to cache image: Invalid image data"),
        ({"image_id": "nobody"}, None, "Image ID not found or expired: nobody"),
        ({"image": b64(png())}, NOTHING_FOUND, "FastSAM did not generate any masks"),
        ({"image": b64(png())}, "[INVALID_ARGUMENT] IMAGE: text", "Failed to cache image: text"),
    ],
    ids=str,
)
async def test_detect_answers_200_without_a_mask(
    client: WebClient, triton: FakeTriton, image: dict[str, str], refuse: str | None, error: str
) -> None:
    if refuse:
        triton.masks.behaviour.refuse = (StatusCode.INVALID_ARGUMENT, refuse)
    answer = await detect(client, **image)
    body = answer.json()
    assert (answer.status_code, body["success"], body["mask"]) == (200, False, None)
    assert body["error"].startswith(error)


@pytest.mark.parametrize(
    ("request_body", "detail"),
    [
        ({}, "Either 'image' or 'image_id' must be provided"),
        ({"image": 7}, "image: "),
        ({"image": "QUJD", "border_adjustment": 51}, "border_adjustment: "),
    ],
    ids=str,
)
async def test_detect_refuses_what_is_no_request(
    client: WebClient, request_body: dict[str, Any], detail: str
) -> None:
    answer = await detect(client, **request_body)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(detail)


# --- extract-object ---


async def test_an_object_is_cut_out(client: WebClient) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2:5] = 255
    mask[4, 2:5] = 60
    request = {"image": b64(_png(pixels)), "mask": f"data:image/png;base64,{b64(_png(mask))}"}
    answer = await client.http.post("/api/image-utils/extract-object", json=request)
    body = answer.json()
    assert (answer.status_code, body["success"], body["error"]) == (200, True, None)
    with Image.open(io.BytesIO(base64.b64decode(body["extracted_image"]))) as cut:
        assert (cut.format, cut.mode) == ("PNG", "RGBA")
        assert (np.asarray(cut) == np.dstack([pixels, mask])).all()


async def test_cutting_out_needs_no_triton(serve: Serve, triton: FakeTriton) -> None:
    await triton.kill()
    async with serve() as client:
        request = {"image": b64(png()), "mask": b64(_png(np.full((1, 1), 255, np.uint8)))}
        answer = await client.http.post("/api/image-utils/extract-object", json=request)
        assert answer.status_code == 200


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


async def test_large_bodies_mean_the_same_as_small_ones(
    client: WebClient, triton: FakeTriton
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    picture = _png(noise)
    body = json.dumps(mask_request(image=b64(picture)), indent=1).encode()
    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = await client.http.post("/api/smart-mask", content=body, headers=headers)
    assert answer.json()["image_id"] == hashlib.sha256(picture).hexdigest()
    assert triton.masks.requests[0]["IMAGE"] == [plain(picture)]
