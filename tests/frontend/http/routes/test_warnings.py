from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from frontend.http.schemas.unknown import MAX_NAME_CHARS, MAX_NAMED
from tests.fakes.pictures import b64, encoded, png
from tests.fakes.web_client import WebClient, edit

if TYPE_CHECKING:
    from tests.fakes.triton_server import FakeTriton
    from tests.frontend.conftest import Serve

MASK = {"image": b64(png()), "points": [[1, 1]]}
VALID: dict[str, dict[str, Any]] = {
    "/api/generate": edit(),
    "/api/generate/async": edit(),
    "/api/smart-mask": MASK,
    "/api/smart-mask/detect": {"image": b64(png())},
    "/api/image-utils/extract-object": {"image": b64(png()), "mask": b64(encoded(mode="L"))},
}


async def warnings(client: WebClient, path: str, **fields: Any) -> list[str]:
    answer = await client.http.post(path, json=VALID[path] | fields)
    assert answer.status_code == 200, answer.text
    found: list[str] = answer.json()["warnings"]
    return found


@pytest.mark.parametrize("path", VALID)
async def test_every_answer_to_json_names_the_unknown_fields(client: WebClient, path: str) -> None:
    assert await warnings(client, path) == []
    assert await warnings(client, path, zzz=None) == ["zzz is not a field of this request"]


@pytest.mark.parametrize("path", VALID)
async def test_a_refusal_names_the_unknown_fields_too(client: WebClient, path: str) -> None:
    answer = await client.http.post(path, json={"zzz": 1})
    assert answer.status_code == 400
    assert answer.json()["warnings"] == ["zzz is not a field of this request"]
    assert "warnings" not in (await client.http.post(path, json={})).json()
    assert "warnings" not in (await client.http.post(path, json=[])).json()


@pytest.mark.parametrize(
    ("path", "name", "meant"),
    [
        ("/api/smart-mask", "point", "points"),
        ("/api/generate", "masks", "conditional_images"),
        ("/api/generate", "images", "conditional_images"),
    ],
)
async def test_what_is_missing_may_be_there_by_another_name(
    client: WebClient, path: str, name: str, meant: str
) -> None:
    answer = await client.http.post(path, json=VALID[path] | {meant: None, name: ["x"]})
    assert answer.status_code == 400
    assert answer.json()["warnings"] == [
        f"{name} is not a field of this request; did you mean {meant}?"
    ]


async def test_no_endpoint_that_takes_json_is_left_out(client: WebClient) -> None:
    paths = (await client.http.get("/openapi.json")).json()["paths"]
    takes_json = {
        path for path, each in paths.items() for op in each.values() if "requestBody" in op
    }
    assert takes_json == set(VALID)


@pytest.mark.parametrize(
    ("path", "name", "meant"),
    [
        ("/api/generate", "steps", "num_inference_steps"),
        ("/api/generate", "numInferenceSteps", "num_inference_steps"),
        ("/api/generate", "cfg", "true_cfg_scale"),
        ("/api/generate", "reference_mask_r", "reference_mask_R"),
        ("/api/smart-mask", "labels", "point_labels"),
        ("/api/smart-mask", "label", "point_labels"),
        ("/api/smart-mask", "box", "bbox"),
        ("/api/smart-mask/detect", "blur", "use_blur"),
    ],
)
async def test_the_field_that_is_likely_meant_is_named(
    client: WebClient, path: str, name: str, meant: str
) -> None:
    sentence = f"{name} is not a field of this request; did you mean {meant}?"
    assert await warnings(client, path, **{name: 4, meant: None}) == [sentence]


async def test_a_mask_by_another_name_is_understood(client: WebClient) -> None:
    fields = {"task_type": "white-balance", "conditional_images": None, "mask_image": "x"}
    (warning,) = await warnings(client, "/api/generate", **fields)
    assert warning == "mask_image is not a field of this request; did you mean conditional_images?"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/generate", "mask_image"),
        ("/api/generate", "image"),
        ("/api/smart-mask", "image_base64"),
        ("/api/image-utils/extract-object", "mask_base64"),
    ],
)
async def test_a_field_that_was_sent_is_not_taken_for_another(
    client: WebClient, path: str, name: str
) -> None:
    assert await warnings(client, path, **{name: "x"}) == [f"{name} is not a field of this request"]


async def test_a_mask_of_another_aspect_is_doubted(client: WebClient) -> None:
    fields = {
        "input_image": b64(png((30, 40))),
        "conditional_images": [b64(encoded(size=(40, 30), mode="L"))],
        "task_type": "insertion",
        "reference_image": b64(png((40, 40))),
        "reference_mask_R": b64(encoded(size=(80, 40), mode="L")),
    }
    assert await warnings(client, "/api/generate", **fields) == [
        "conditional_images.0: a mask of 40x30 is stretched to the picture of 30x40",
        "reference_mask_R: a mask of 80x40 is stretched to the picture of 40x40",
    ]


async def test_a_cut_out_s_mask_of_another_aspect_is_doubted(client: WebClient) -> None:
    path = "/api/image-utils/extract-object"
    fields = {"image": b64(png((30, 40))), "mask": b64(encoded(size=(40, 30), mode="L"))}
    assert await warnings(client, path, **fields, zzz=1) == [
        "zzz is not a field of this request",
        "mask: a mask of 40x30 is stretched to the picture of 30x40",
    ]
    assert await warnings(client, path, **fields | {"image": b64(png((400, 300)))}) == []


async def test_a_rough_mask_of_another_aspect_is_doubted(client: WebClient) -> None:
    path = "/api/smart-mask"
    # The stand-in's answer is a picture of 8x8 pixels.
    rough = {"points": None, "mask": b64(encoded(size=(40, 30), mode="L"))}
    expected = ["mask: a mask of 40x30 is stretched to the picture of 8x8"]
    answer = await client.http.post(path, json=VALID[path] | rough)
    assert answer.json()["warnings"] == expected
    named = {"image": None, "image_id": answer.json()["image_id"]}
    assert await warnings(client, path, **rough, **named) == expected
    square = {"points": None, "mask": b64(encoded(size=(41, 40), mode="L"))}
    assert await warnings(client, path, **square) == []
    # Beside points and boxes a rough mask does not count.
    for prompt in ({"points": [[1, 1]]}, {"bbox": [1, 1, 4, 4]}):
        assert await warnings(client, path, **rough | prompt) == []


async def test_a_mask_of_the_same_aspect_is_not_doubted(client: WebClient) -> None:
    fields = {"input_image": b64(png((1000, 667)))}
    # A third of the picture, rounded.
    for size in ((1000, 667), (333, 222)):
        masks = [b64(encoded(size=size, mode="L"))]
        assert await warnings(client, "/api/generate", **fields, conditional_images=masks) == []
    # A white balance has no mask: its picture is only named as not used.
    fields |= {"task_type": "white-balance"}
    masks = [b64(encoded(size=(30, 90), mode="L"))]
    (warning,) = await warnings(client, "/api/generate", **fields, conditional_images=masks)
    assert warning.startswith("conditional_images: white-balance uses none")


async def test_warnings_are_bounded(client: WebClient) -> None:
    unknown = {f"{number:02}{'q' * 10_000}": 1 for number in range(MAX_NAMED + 5)}
    found = await warnings(client, "/api/generate", **unknown)
    assert len(found) == MAX_NAMED + 1
    assert found[0].startswith(f"00{'q' * (MAX_NAME_CHARS - 2)}… is not")
    assert found[-1] == "5 more fields are not fields of this request"


async def test_a_name_that_is_no_text_is_shown_without_its_bytes(client: WebClient) -> None:
    body = json.dumps(edit())[:-1] + r', "\ud800\u0000x": 1}'
    headers = {"Content-Type": "application/json"}
    answer = await client.http.post("/api/generate", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["warnings"] == ["??x is not a field of this request"]


async def test_an_edit_that_takes_longer_than_a_job_may_is_told_so(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.behaviour.step_s = 0.3
    slow = edit(num_inference_steps=100)
    # Above what the measured edit takes, and below what a hundred steps take.
    async with serve(job_timeout_s=20) as client:
        # Nothing is known of the first, so nothing is said of it.
        first = (await client.http.post("/api/generate", json=slow)).json()
        assert first["warnings"] == []
        await client.cancel(first["task_id"])
        await client.finish(edit(num_inference_steps=2))
        async with asyncio.timeout(60):  # until the board has heard of the edit's pace
            while not (found := await warnings(client, "/api/generate", num_inference_steps=100)):
                await asyncio.sleep(0.2)
        (warning,) = found
        assert "after 20 s: lower num_inference_steps or width and height" in warning
        assert await warnings(client, "/api/generate", num_inference_steps=2) == []
