"""Smart masks through the whole stack: REST to the real tritonserver and back."""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs
from skimage import filters, measure

from frontend.http.schemas.fields import EXAMPLE_MASK
from tests.fakes.web_client import b64, png

from .mask_scenes import enlarged, iou, mask_of, numbered, scene

if TYPE_CHECKING:
    import httpx

EXAMPLES = Path(__file__).parents[2] / "examples"
Json = dict[str, Any]


async def ask(http: httpx.AsyncClient, image: bytes | str | None = None, **fields: Any) -> Json:
    """Return the answer to a request that must succeed."""
    if image is not None:
        fields["image"] = b64(image) if isinstance(image, bytes) else image
    response = await http.post("/api/smart-mask", json=fields)
    assert response.status_code == 200, response.text
    answer: Json = response.json()
    assert answer["success"] is True
    assert answer["error"] is None
    return answer


async def refusal(http: httpx.AsyncClient, status: int = 400, **fields: Any) -> str:
    """Return the detail of a request that must be refused."""
    response = await http.post("/api/smart-mask", json=fields)
    assert response.status_code == status, response.text
    detail = response.json()["detail"]
    assert isinstance(detail, str)
    return detail


def decoded(answer: Json) -> bytes:
    return base64.b64decode(answer["mask_base64"])


async def idle(http: httpx.AsyncClient) -> None:
    """Wait until neither the frontend nor the model has a mask request."""
    async with asyncio.timeout(30):
        while True:
            health = (await http.get("/api/system/health")).json()["services"]["segmentation"]
            counts = [health.get(key, 0) for key in ("waiting", "running")]
            if not any(counts):
                return
            await asyncio.sleep(0.02)


# --- what is found ---


@pytest.mark.parametrize("number", range(8))
async def test_the_drawn_object_is_found_by_every_prompt(
    http: httpx.AsyncClient, number: int
) -> None:
    drawn = scene(number)
    first = await ask(http, drawn.png, points=[drawn.middle])
    image_id = first["image_id"]
    found = {
        "points": first,
        "bbox": await ask(http, image_id=image_id, bbox=drawn.box),
        "mask": await ask(http, image_id=image_id, mask=b64(drawn.guidance())),
        "auto_detect": await ask(http, image_id=image_id, auto_detect=True),
    }
    quality = {prompt: iou(mask_of(decoded(a)), drawn.truth) for prompt, a in found.items()}
    assert min(quality[prompt] for prompt in ("points", "bbox", "mask")) > 0.85, quality
    assert quality["auto_detect"] > 0.7, quality


async def test_a_negative_point_changes_the_choice(http: httpx.AsyncClient) -> None:
    drawn = scene(3)
    x, y = drawn.middle
    detail = await refusal(
        http, image=b64(drawn.png), points=[[x, y], [x + 5, y + 5]], point_labels=[1, 0]
    )
    assert detail == (
        "FastSAM did not generate any masks: "
        "every object at the points also holds a point that must be outside"
    )


async def test_coins_in_a_photograph_are_found_by_a_click(http: httpx.AsyncClient) -> None:
    """The truth is what stands out from the dark cloth, its holes filled."""
    photograph = photographs.coins()
    light = (
        filters.gaussian(photograph, 1) > filters.threshold_local(photograph, 151, offset=-12) / 255
    )
    regions = measure.regionprops(measure.label(light))
    coins = sorted(regions, key=lambda region: region.area_filled)[-16:]
    image = png(photograph)
    quality = []
    for coin in coins:
        row, column = coin.centroid
        response = await http.post(
            "/api/smart-mask", json={"image": b64(image), "points": [[column, row]]}
        )
        truth = np.zeros(photograph.shape, np.bool_)
        truth[coin.slice] = coin.image_filled
        found = response.status_code == 200
        quality.append(iou(mask_of(decoded(response.json())), truth) if found else 0.0)
    assert np.median(quality) > 0.85, quality
    assert sum(value > 0.7 for value in quality) >= 13, quality


async def test_a_cup_in_a_photograph_is_found_by_a_click(http: httpx.AsyncClient) -> None:
    data = (EXAMPLES / "warm-light.jpg").read_bytes()
    mask = mask_of(decoded(await ask(http, data, points=[[285, 75]])))
    assert mask.shape == (512, 512)
    assert mask[75, 285]
    assert 0.02 < mask.mean() < 0.4


async def test_border_adjustment_is_monotone(http: httpx.AsyncClient) -> None:
    drawn = scene(5)
    answer = await ask(http, drawn.png, points=[drawn.middle])
    areas = []
    for border in (-50, -10, -4, 0, 4, 10, 50):
        found = await ask(
            http, image_id=answer["image_id"], points=[drawn.middle], border_adjustment=border
        )
        areas.append(int(mask_of(decoded(found)).sum()))
    assert areas == sorted(areas)
    assert len(set(areas)) == len(areas)


async def test_blur_gives_softer_edges(http: httpx.AsyncClient) -> None:
    drawn = scene(5)

    async def soft(*, use_blur: bool) -> int:
        answer = await ask(http, drawn.png, points=[drawn.middle], use_blur=use_blur)
        values = np.asarray(Image.open(io.BytesIO(decoded(answer))))
        return int(((values > 5) & (values < 250)).sum())

    assert await soft(use_blur=True) > await soft(use_blur=False)


@pytest.mark.parametrize("path", ["/api/smart-mask", "/api/smart-mask/detect"])
async def test_every_example_at_docs_finds_something(http: httpx.AsyncClient, path: str) -> None:
    schemas = (await http.get("/openapi.json")).json()
    body = schemas["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    examples = schemas["components"]["schemas"][body["$ref"].rsplit("/", 1)[1]]["examples"]
    assert examples
    for example in examples:
        response = await http.post(path, json=example)
        assert response.status_code == 200, response.text
        assert response.json()["success"] is True
        assert response.json()["warnings"] == []


# --- the same answer, cold and cached ---


async def test_cold_and_cached_answers_are_the_same_bit_for_bit(http: httpx.AsyncClient) -> None:
    for number, kind in enumerate(("points", "bbox", "auto_detect")):
        drawn = scene(101 + number)  # the same pixels in another file would be known already
        prompts: dict[str, Json] = {
            "points": {"points": [drawn.middle]},
            "bbox": {"bbox": drawn.box, "use_blur": True},
            "auto_detect": {"auto_detect": True},
        }
        prompt, image = prompts[kind], drawn.png
        cold = await ask(http, image, **prompt)
        by_id = await ask(http, image_id=cold["image_id"], **prompt)
        again = await ask(http, image, **prompt)
        assert [a["cached"] for a in (cold, by_id, again)] == [False, True, True]
        assert cold["mask_base64"] == by_id["mask_base64"] == again["mask_base64"]
        assert cold["image_id"] == by_id["image_id"] == again["image_id"]


async def test_a_data_url_is_the_same_image(http: httpx.AsyncClient) -> None:
    drawn = scene(102, 128)
    plain = await ask(http, drawn.png, auto_detect=True)
    url = f"data:image/png;base64,{b64(drawn.png)}"
    assert (await ask(http, image=url, image_id=None, auto_detect=True))["cached"] is True
    assert plain["image_id"] == (await ask(http, image=url, auto_detect=True))["image_id"]


# --- pictures of every kind ---


def encoded(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (3, 2), (320, 320), (1333, 257), (2500, 1900)])
async def test_pictures_of_any_size(http: httpx.AsyncClient, size: tuple[int, int]) -> None:
    drawn = Image.open(io.BytesIO(scene(7).png)).resize(size)
    response = await http.post(
        "/api/smart-mask", json={"image": b64(encoded(drawn, "PNG")), "auto_detect": True}
    )
    if response.status_code == 200:
        mask = mask_of(decoded(response.json()))
        assert mask.shape == size[::-1]
        assert mask.any()
    else:  # in a picture of a few pixels there may be no object
        assert response.json()["detail"].startswith("FastSAM did not generate any masks: ")
        assert min(size) < 10


async def test_the_largest_picture(http: httpx.AsyncClient) -> None:
    side = 8192
    drawn = scene(2)
    large = Image.open(io.BytesIO(drawn.png)).resize((side, side), Image.Resampling.BILINEAR)
    data = encoded(large, "JPEG", quality=80)
    x, y = drawn.middle
    answer = await ask(http, data, points=[[x * side / 512, y * side / 512]])
    mask = mask_of(decoded(answer))
    assert mask.shape == (side, side)
    assert iou(mask[8::16, 8::16], drawn.truth) > 0.85
    larger = encoded(Image.new("L", (side + 1, side)), "PNG")
    assert "8193x8192" in await refusal(http, image=b64(larger), auto_detect=True)


async def test_grey_alpha_palette_rotated_and_animated_pictures(http: httpx.AsyncClient) -> None:
    drawn = scene(1)
    picture = Image.open(io.BytesIO(drawn.png))
    x, y = drawn.middle
    opaque = picture.copy()
    opaque.putalpha(255)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    kinds = {
        "grey": encoded(picture.convert("L"), "PNG"),
        "alpha": encoded(opaque, "WEBP", lossless=True),
        "palette": encoded(picture.quantize(64), "PNG"),
        "rotated": encoded(picture.rotate(180), "JPEG", quality=95, exif=exif),
        "animated": encoded(
            picture, "GIF", save_all=True, append_images=[Image.new("RGB", picture.size)]
        ),
        "tiff": encoded(picture, "TIFF"),
        "bmp": encoded(picture, "BMP"),
    }
    for kind, data in kinds.items():
        mask = mask_of(decoded(await ask(http, data, points=[[x, y]])))
        assert iou(mask, drawn.truth) > 0.85, kind


# --- prompts at the edges ---


async def test_prompts_at_and_beyond_the_border(http: httpx.AsyncClient) -> None:
    drawn = scene(0)
    left, top, right, bottom = drawn.box
    image_id = (await ask(http, drawn.png, points=[drawn.middle]))["image_id"]
    cut = await ask(http, image_id=image_id, bbox=[left, top, right, bottom + 10_000])
    assert mask_of(decoded(cut)).any()
    for point in ([0, 0], [511, 511], [-50, 9999], [512, 0.5]):
        response = await http.post(
            "/api/smart-mask", json={"image_id": image_id, "points": [point]}
        )
        assert response.status_code in (200, 400)
        if response.status_code == 400:
            detail = response.json()["detail"]
            assert detail.startswith("FastSAM did not generate any masks: ")
            beyond = point not in ([0, 0], [511, 511])
            assert ("lies outside the picture of 512x512 pixels" in detail) == beyond
    outside = await refusal(http, image_id=image_id, bbox=[600, 600, 700, 700])
    assert outside == (
        "FastSAM did not generate any masks: "
        "the box [600, 600, 700, 700] lies outside the picture of 512x512 pixels"
    )


async def test_a_box_of_one_pixel(http: httpx.AsyncClient) -> None:
    drawn = scene(0)
    x, y = (int(value) for value in drawn.middle)
    answer = await ask(http, drawn.png, bbox=[x, y, x + 1, y + 1])
    assert mask_of(decoded(answer))[y, x]


async def test_an_empty_guidance_mask_is_refused_with_what_was_seen(
    http: httpx.AsyncClient,
) -> None:
    request = {"image": b64(scene(6).png), "mask": b64(png(np.zeros((512, 512), np.uint8)))}
    response = await http.post("/api/smart-mask", json=request)
    assert response.status_code == 400
    assert response.json()["detail"].startswith("mask: No object found in mask (no white pixels)")


# --- many at once, and cancelling ---


async def test_32_clients_at_once(http: httpx.AsyncClient) -> None:
    scenes = [scene(200 + number, 256) for number in range(4)]
    fields: list[Json] = [{"image": b64(drawn.png), "points": [drawn.middle]} for drawn in scenes]
    alone = [(await ask(http, **field))["mask_base64"] for field in fields]

    async def client(number: int) -> None:
        for turn in range(4):
            index = (number + turn) % len(scenes)
            assert (await ask(http, **fields[index]))["mask_base64"] == alone[index]

    await asyncio.gather(*map(client, range(32)))
    await idle(http)


async def test_requests_for_the_same_new_image_at_once_run_the_network_once(
    http: httpx.AsyncClient,
) -> None:
    drawn = scene(300)
    answers = await asyncio.gather(*(ask(http, drawn.png, points=[drawn.middle]) for _ in range(8)))
    assert sum(not answer["cached"] for answer in answers) == 1
    assert len({answer["mask_base64"] for answer in answers}) == 1


async def test_requests_are_cancelled_whether_they_wait_or_run(http: httpx.AsyncClient) -> None:
    """Of 64 slow requests some are done by then, some run, some have not begun."""
    images = numbered(enlarged(scene(4).png, 2000), 64)

    async def post(number: int) -> httpx.Response:
        fields = {
            "image": b64(images[number]),
            "auto_detect": True,
            "request_id": f"cancel-{number}",
        }
        return await http.post("/api/smart-mask", json=fields)

    requests = [asyncio.create_task(post(number)) for number in range(64)]
    async with asyncio.timeout(60):
        admitted = 0
        while admitted < len(requests):
            done = sum(request.done() for request in requests)
            health = (await http.get("/api/system/health")).json()["services"]["segmentation"]
            admitted = health["waiting"] + health["running"] + done
    for number in range(64):
        answer = await http.post(f"/api/smart-mask/cancel/cancel-{number}")
        assert answer.status_code == 200
        late = "answered" in answer.json()["message"]
        what = "had already been answered" if late else "marked for cancellation"
        assert answer.json() == {
            "success": True,
            "message": f"Smart mask request cancel-{number} {what}",
            "request_id": f"cancel-{number}",
        }
    responses = await asyncio.wait_for(asyncio.gather(*requests), 60)
    for number, response in enumerate(responses):
        if response.status_code != 200:
            assert response.status_code == 400
            expected = f"Segmentation request cancel-{number} was cancelled"
            assert response.json()["detail"] == expected
    assert sum(response.status_code == 400 for response in responses) > 4
    await idle(http)
    drawn = scene(4, 256)
    assert (await ask(http, drawn.png, auto_detect=True))["success"]


async def test_cancels_at_random_moments_lose_nothing(http: httpx.AsyncClient) -> None:
    drawn = scene(5, 256)
    random = np.random.default_rng(0)

    async def client(number: int) -> None:
        for turn in range(12):
            name = f"random-{number}-{turn}"
            image = drawn.png + name.encode() if turn % 3 == 0 else drawn.png
            request = asyncio.create_task(
                http.post(
                    "/api/smart-mask",
                    json={"image": b64(image), "points": [drawn.middle], "request_id": name},
                )
            )
            await asyncio.sleep(random.uniform(0, 0.06))
            cancel = await http.post(f"/api/smart-mask/cancel/{name}")
            assert cancel.status_code == 200
            response = await request
            if response.status_code != 200:
                expected = f"Segmentation request {name} was cancelled"
                assert response.json()["detail"] == expected

    async with asyncio.timeout(300):
        await asyncio.gather(*map(client, range(8)))
    await idle(http)


async def test_cancelling_an_unknown_request_is_no_error(http: httpx.AsyncClient) -> None:
    assert (await http.post("/api/smart-mask/cancel/nobody")).status_code == 200


# --- the other endpoints ---


async def test_detect_answers_200_whatever_it_finds(http: httpx.AsyncClient) -> None:
    drawn = scene(6)
    found = (await http.post("/api/smart-mask/detect", json={"image": b64(drawn.png)})).json()
    assert (found["success"], found["error"]) == (True, None)
    assert iou(mask_of(base64.b64decode(found["mask"])), drawn.truth) > 0.7
    response = await http.post("/api/smart-mask/detect", json={"image": b64(b"no picture")})
    assert response.status_code == 200
    assert response.json()["success"] is False
    assert response.json()["error"]


async def test_a_found_object_can_be_extracted(http: httpx.AsyncClient) -> None:
    drawn = scene(1)
    mask = (await ask(http, drawn.png, points=[drawn.middle]))["mask_base64"]
    response = await http.post(
        "/api/image-utils/extract-object", json={"image": b64(drawn.png), "mask": mask}
    )
    assert response.status_code == 200
    extracted = Image.open(io.BytesIO(base64.b64decode(response.json()["extracted_image"])))
    assert (extracted.mode, extracted.size) == ("RGBA", (512, 512))
    pixels = np.asarray(extracted)
    assert iou(pixels[:, :, 3] > 127, drawn.truth) > 0.85
    original = np.asarray(Image.open(io.BytesIO(drawn.png)))
    opaque = pixels[:, :, 3] == 255
    assert (pixels[opaque, :3] == original[opaque]).all()
    empty = png(np.zeros((8, 8), np.uint8))
    response = await http.post(
        "/api/image-utils/extract-object", json={"image": b64(drawn.png), "mask": b64(empty)}
    )
    assert response.status_code == 400
    assert response.json()["detail"].startswith("No object found in mask (no white pixels)")


async def test_every_documented_example_finds_the_ball(http: httpx.AsyncClient) -> None:
    schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    ball = mask_of(base64.b64decode(EXAMPLE_MASK))
    examples = schemas["SmartMaskRequest"]["examples"]
    assert len(examples) == 4
    for example in examples:
        found = mask_of(decoded(await ask(http, **example)))
        assert iou(found, ball) > 0.7, example.keys()
    for example in schemas["DetectRequest"]["examples"]:
        answer = (await http.post("/api/smart-mask/detect", json=example)).json()
        assert iou(mask_of(base64.b64decode(answer["mask"])), ball) > 0.7
