"""What people report of servers like this one, asked of the real tritonserver.

Each test names its threads on GitHub, as owner/repository#number.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw
from tritonclient.utils import InferenceServerException

from tests.fakes.web_client import b64, edit

from .direct_client import collect, removal, tensors
from .mask_scenes import mask_of, scene

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import tritonclient.grpc.aio as grpc_aio

    from tests.fakes.web_client import WebClient

    from .server import Server

NOTHING = "FastSAM did not generate any masks"
INFER = "/v2/models/smart_mask/infer"
Json = dict[str, Any]
Box = tuple[int, int, int, int]


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture
async def triton_http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.triton_http_url, timeout=60) as client:
        yield client


def drawn(*disks: Box, size: tuple[int, int] = (512, 512), file_format: str = "PNG") -> bytes:
    """Draw red disks on plain green."""
    picture = Image.new("RGB", size, (90, 140, 90))
    for disk in disks:
        ImageDraw.Draw(picture).ellipse(disk, fill=(220, 30, 30))
    buffer = io.BytesIO()
    picture.save(buffer, file_format)
    return buffer.getvalue()


LEFT, RIGHT = (60, 190, 190, 320), (310, 190, 440, 320)
ON_LEFT, ON_RIGHT = [125, 255], [375, 255]
TWO = drawn(LEFT, RIGHT)


async def answer(http: httpx.AsyncClient, image: bytes, **fields: Any) -> Json | str:
    """Return a mask's answer, or the detail of its refusal by 400."""
    response = await http.post("/api/smart-mask", json={"image": b64(image), **fields})
    assert response.status_code in (200, 400), response.text
    body: Json = response.json()
    return body if response.status_code == 200 else str(body["detail"])


async def mask(http: httpx.AsyncClient, image: bytes, **fields: Any) -> np.ndarray[Any, Any]:
    found = await answer(http, image, **fields)
    assert isinstance(found, dict), found
    return mask_of(base64.b64decode(found["mask_base64"]))


# wkentaro/labelme#2026, hiroalchem/napari-SAM4IS#21: a box drawn from another corner
async def test_a_box_s_corners_are_in_order_or_refused(http: httpx.AsyncClient) -> None:
    left, top, right, bottom = LEFT
    assert (await mask(http, TWO, bbox=LEFT))[255, 125]
    for box in ([right, top, left, bottom], [left, bottom, right, top], [right, bottom, left, top]):
        refused = await answer(http, TWO, bbox=box)
        assert refused == "bbox: must be [x0, y0, x1, y1] with x0 < x1 and y0 < y1"


# ultralytics/ultralytics#25916: prompts partly outside the picture
async def test_prompts_partly_outside_are_cut_to_the_picture(
    http: httpx.AsyncClient, triton: grpc_aio.InferenceServerClient
) -> None:
    image = drawn((-60, 190, 90, 320))
    boxes = [[-40, 180, 100, 330], [0, 180, 100, 330]]
    outside, inside = [await mask(http, image, bbox=box) for box in boxes]
    assert inside.any()
    assert (outside == inside).all()
    direct = [
        await triton.infer(
            "smart_mask", tensors({"IMAGE": image, "BBOX": np.array(box, np.float32)})
        )
        for box in boxes
    ]
    assert len({result.as_numpy("MASK_IMAGE")[0] for result in direct}) == 1
    assert (await mask(http, image, points=[[0, 255]])).any()
    for far in ([-1, 255], [-5000, -5000], [512, 512], [1e7, 10]):
        x, y = map(int, far)
        reason = f"point 0, [{x}, {y}], lies outside the picture of 512x512 pixels"
        assert await answer(http, image, points=[far]) == f"{NOTHING}: {reason}"
        beside = await answer(http, image, points=[[0, 255], far])
        assert isinstance(beside, dict)
        assert beside["points_missed"] == [1]


# A click beyond the picture and a click on nothing need another click for different reasons.
@pytest.mark.parametrize(
    ("fields", "inputs", "reason"),
    [
        (
            {"bbox": [600, 5, 700, 9]},
            {"BBOX": np.array([600, 5, 700, 9], np.float32)},
            "the box [600, 5, 700, 9] lies outside the picture of 512x512 pixels",
        ),
        (
            {"points": [[900, 255]]},
            {"POINTS": np.array([[900, 255]], np.float32)},
            "point 0, [900, 255], lies outside the picture of 512x512 pixels",
        ),
        (
            {"points": [[-5, 255]]},
            {"POINTS": np.array([[-5, 255]], np.float32)},
            "point 0, [-5, 255], lies outside the picture of 512x512 pixels",
        ),
        (
            {"points": [ON_LEFT, [145, 255]], "point_labels": [1, 0]},
            {
                "POINTS": np.array([ON_LEFT, [145, 255]], np.float32),
                "POINT_LABELS": np.array([1, 0], np.int32),
            },
            "every object at the points also holds a point that must be outside",
        ),
    ],
    ids=["box", "point", "point before", "labels"],
)
async def test_why_nothing_is_found_is_told_alike_by_rest_and_grpc(
    http: httpx.AsyncClient,
    triton: grpc_aio.InferenceServerClient,
    fields: Json,
    inputs: Json,
    reason: str,
) -> None:
    assert await answer(http, TWO, **fields) == f"{NOTHING}: {reason}"
    with pytest.raises(InferenceServerException, match=re.escape(f"{NOTHING}: {reason}")):
        await triton.infer("smart_mask", tensors({"IMAGE": TWO, **inputs}))


# facebookresearch/sam2#235, facebookresearch/segment-anything#366: box and points together
async def test_a_point_beside_a_box_decides(http: httpx.AsyncClient) -> None:
    for point, box in itertools.product((ON_LEFT, ON_RIGHT), (LEFT, RIGHT)):
        found = await mask(http, TWO, points=[point], bbox=box)
        assert [found[y, x] for x, y in (ON_LEFT, ON_RIGHT)] == [
            point is ON_LEFT,
            point is ON_RIGHT,
        ]
    labelled = {"points": [ON_LEFT, ON_RIGHT], "point_labels": [1, 0]}
    found = await mask(http, TWO, bbox=LEFT, **labelled)
    assert found[255, ON_LEFT[0]]
    assert not found[255, ON_RIGHT[0]]


# CASIA-LMC-Lab/FastSAM#134, facebookresearch/segment-anything#524, sam2#168: two objects
async def test_an_answer_says_which_points_it_does_not_hold(
    http: httpx.AsyncClient, triton: grpc_aio.InferenceServerClient
) -> None:
    points = [ON_LEFT, ON_RIGHT]
    found = await answer(http, TWO, points=points)
    assert isinstance(found, dict)
    pixels = mask_of(base64.b64decode(found["mask_base64"]))
    missed = [index for index, (x, y) in enumerate(points) if not pixels[y, x]]
    assert len(missed) == 1
    assert found["points_missed"] == missed
    inputs = tensors({"IMAGE": TWO, "POINTS": np.array(points, np.float32)})
    direct = await triton.infer("smart_mask", inputs)
    assert direct.as_numpy("POINTS_MISSED").tolist() == missed
    for fields in ({"points": [ON_LEFT]}, {"bbox": LEFT}, {"auto_detect": True}):
        one = await answer(http, TWO, **fields)
        assert isinstance(one, dict)
        assert one["points_missed"] == []


# ultralytics/ultralytics#16705, #16089: negative points
async def test_labels_decide_what_is_left_out(http: httpx.AsyncClient) -> None:
    on_it = [ON_LEFT, [ON_LEFT[0] + 20, ON_LEFT[1]]]
    assert str(await answer(http, TWO, points=on_it, point_labels=[1, 0])).startswith(NOTHING)
    masks = [
        await mask(http, TWO, points=[ON_LEFT, ON_RIGHT], point_labels=labels)
        for labels in ([1, 0], [0, 1])
    ]
    assert not (masks[0] & masks[1]).any()


# HumanSignal/label-studio#411: normalised coordinates
async def test_coordinates_are_pixels(http: httpx.AsyncClient) -> None:
    image = drawn((350, 450, 550, 650), size=(1000, 1000))
    assert (await mask(http, image, points=[[450, 550]]))[550, 450]
    normalised = await answer(http, image, points=[[0.45, 0.55]])
    if isinstance(normalised, dict):
        assert not mask_of(base64.b64decode(normalised["mask_base64"]))[550, 450]
    else:
        assert normalised.startswith(NOTHING)


# computational-cell-analytics/micro-sam#1347, roboflow/inference#606: another picture's features
async def test_pictures_of_one_size_keep_their_own_masks(http: httpx.AsyncClient) -> None:
    pictures = [drawn(LEFT, file_format=kind) for kind in ("PNG", "JPEG")]
    pictures += [drawn(RIGHT, file_format=kind) for kind in ("PNG", "JPEG")]
    points = [ON_LEFT, ON_LEFT, ON_RIGHT, ON_RIGHT]
    uploads = [b64(picture) for picture in pictures]
    wrapped = "data:image/png;base64," + "\r\n".join(
        uploads[0][start : start + 76] for start in range(0, len(uploads[0]), 76)
    )

    async def ask(index: int, upload: str) -> tuple[str, str]:
        fields = {"image": upload, "points": [points[index]]}
        response = await http.post("/api/smart-mask", json=fields)
        assert response.status_code == 200, response.text
        return response.json()["image_id"], response.json()["mask_base64"]

    alone = [await ask(index, upload) for index, upload in enumerate(uploads)]
    assert len({image_id for image_id, _ in alone}) == len(pictures)
    assert await ask(0, wrapped) == alone[0]

    async def client(number: int) -> None:
        for turn in range(50):
            index = (number + turn) % len(pictures)
            assert await ask(index, uploads[index]) == alone[index]

    await asyncio.gather(*map(client, range(8)))


# google-deepmind/gemma#770, huggingface/transformers#26468, ggml-org/llama.cpp#26273
@pytest.mark.parametrize("field", ["prompt", "negative_prompt", "angle", "background_preset"])
async def test_a_control_token_is_a_400_that_names_field_and_token(
    client: WebClient, triton: grpc_aio.InferenceServerClient, field: str
) -> None:
    for token in ("<|image_pad|>", "<|im_end|>"):
        task_id = await client.submit(edit(**{field: f"a chair {token}"}))
        *_, last = [event async for event in client.events(task_id)]
        assert last["status"] == "error"
        sentence = last["error"]
        named = "negative_prompt" if field == "negative_prompt" else "prompt"
        assert sentence.startswith(f"400: {named}: the model's own token {token} may not stand")
        assert field in sentence
        direct = await collect(triton, removal(**{field.upper(): f"a chair {token}"}))
        text = direct[-1].error or ""
        assert f"[INVALID_ARGUMENT] {named.upper()}: the model's own token {token}" in text
    await client.finish()


# vllm-project/vllm-omni#1248, lllyasviel/Fooocus#44: seeds that mean the same
async def test_every_seed_counts_and_is_given_back_exactly(client: WebClient) -> None:
    pictures = set()
    seeds = [0, 7, 2**32, 2**53 + 1, 2**63 - 1]
    for seed in seeds:
        _, result = await client.finish(edit(seed=seed, num_inference_steps=1))
        assert result["parameters_used"]["seed"] == seed
        pictures.add(result["image"])
    assert len(pictures) == len(seeds)
    for same, seed in ((-0.0, 0), (7.0, 7), (1e3, 1000)):
        _, result = await client.finish(edit(seed=same, num_inference_steps=1))
        assert result["parameters_used"]["seed"] == seed
    for wrong in (-1, 2**63, "7", 9.2233720368547758e18):
        response = await client.http.post("/api/generate/async", json=edit(seed=wrong))
        assert response.status_code == 400
        assert response.json()["detail"].startswith("seed: ")


# divamgupta/diffusionbee-stable-diffusion-ui#327: texts that break what reads them
async def test_odd_texts_are_edited_or_refused_by_name(client: WebClient, server: Server) -> None:
    mark = "line-of-nobody"
    for text in ("a\0b", "\u202ea", "{}", "%s", f"a\n{mark}\r{mark}"):
        await client.finish(edit(prompt=text, negative_prompt=text, num_inference_steps=1))
    task_id = await client.submit(edit(prompt="🪑" * 4096))
    *_, last = [event async for event in client.events(task_id)]
    assert last["error"].startswith("400: prompt: ")
    assert " tokens long, at most " in last["error"]
    lines = server.log.read_text(errors="replace").splitlines()
    assert not any(line.startswith(mark) for line in lines)


# triton-inference-server/server#7368, #8034: short deadlines of direct clients
async def test_short_deadlines_leave_triton_alive(
    server: Server, triton: grpc_aio.InferenceServerClient
) -> None:
    before = server.tritonserver().pid
    image = scene(407).png

    async def hurry(number: int) -> None:
        for turn in range(25):
            inputs = {"IMAGE": image + b"%d-%d" % (number, turn), "AUTO_DETECT": np.array([True])}
            with pytest.raises(InferenceServerException, match="Deadline"):
                await triton.infer("smart_mask", tensors(inputs), client_timeout=0.001)

    await asyncio.gather(*map(hurry, range(8)))
    inputs = {"IMAGE": image, "AUTO_DETECT": np.array([True])}
    result = await triton.infer("smart_mask", tensors(inputs), client_timeout=120)
    assert mask_of(result.as_numpy("MASK_IMAGE")[0]).any()
    assert server.tritonserver().pid == before


# triton-inference-server/server#2520, #2478, #1649: text where bytes belong
@pytest.mark.parametrize(
    ("tensor", "statuses"),
    [
        ({"datatype": "BYTES", "shape": [1], "data": [b64(TWO)]}, {400}),
        ({"datatype": "BYTES", "shape": ["-1"], "data": ["x"]}, {400, 500}),
        ({"datatype": "BYTES", "shape": "-1", "data": ["x"]}, {400, 500}),
        ({"datatype": "BYTES", "shape": [1], "data": [{"b64": b64(TWO)}]}, {400, 500}),
    ],
    ids=["base64", "shape of text", "text as shape", "b64"],
)
async def test_text_where_bytes_belong_harms_nobody(
    server: Server, triton_http: httpx.AsyncClient, tensor: Json, statuses: set[int]
) -> None:
    before = server.tritonserver().pid
    detect = {"name": "AUTO_DETECT", "datatype": "BOOL", "shape": [1], "data": [True]}
    body = {"inputs": [{"name": "IMAGE", **tensor}, detect]}
    response = await triton_http.post(INFER, json=body)
    assert response.status_code in statuses, response.text
    if statuses == {400}:
        assert "[INVALID_ARGUMENT] IMAGE: " in response.json()["error"]
    assert server.tritonserver().pid == before
    ping = {"inputs": [{"name": "CANCEL", "datatype": "BYTES", "shape": [1], "data": [""]}]}
    assert (await triton_http.post(INFER, json=ping)).status_code == 200


# triton-inference-server/server#8021, #6485: /generate, /generate_stream and /infer of image_edit
async def test_triton_s_other_doors_to_an_edit_answer_at_once(
    triton_http: httpx.AsyncClient,
) -> None:
    model = "/v2/models/image_edit"
    async with asyncio.timeout(30):
        streamed = await triton_http.post(f"{model}/generate_stream", json={"PROMPT": "x"})
        ping = await triton_http.post(f"{model}/generate", json={"CANCEL": ""})
        plain = await triton_http.post(
            f"{model}/infer",
            json={"inputs": [{"name": "CANCEL", "datatype": "BYTES", "shape": [1], "data": [""]}]},
        )
    assert "[INVALID_ARGUMENT] IMAGE" in streamed.text
    assert ping.status_code == 200, ping.text
    assert json.loads(ping.json()["INFO"])["max_queue_size"] > 0
    assert plain.status_code in (400, 501)
    assert "decoupled" in plain.json()["error"]
