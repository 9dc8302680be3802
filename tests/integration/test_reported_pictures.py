"""What people report of pictures and masks, asked of the real tritonserver.

Each test names its threads on GitHub, as owner/repository#number.
"""

from __future__ import annotations

import asyncio
import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, ImageDraw, ImageOps

from tests.fakes.profiles import profile
from tests.fakes.web_client import b64, long_edit

if TYPE_CHECKING:
    from tests.fakes.web_client import WebClient

Json = dict[str, Any]
Pixels = npt.NDArray[np.uint8]
SIDE = 256
GREEN, RED = (90, 140, 90), (220, 30, 30)
DISC = (100, 100, 156, 156)
SQUARE = (90, 90, 166, 166)
REGIONS = ["full", "auto"]


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(ground: Any = GREEN) -> Image.Image:
    """A red disc."""
    picture = Image.new("RGB", (SIDE, SIDE), ground)
    ImageDraw.Draw(picture).ellipse(DISC, fill=RED)
    return picture


def texture(size: tuple[int, int], seed: int = 5) -> Image.Image:
    """Soft noise everywhere."""
    cells = (size[1] // 6 + 2, size[0] // 6 + 2, 3)
    rough = np.random.default_rng(seed).integers(0, 256, cells, np.uint8)
    return Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)


def square(value: int = 255, box: tuple[int, ...] = SQUARE) -> Image.Image:
    mask = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(mask).rectangle(box, fill=value)
    return mask


def removal(image: Image.Image | bytes, mask: Image.Image | bytes, **fields: Any) -> Json:
    files = [each if isinstance(each, bytes) else encoded(each) for each in (image, mask)]
    return {
        "prompt": "remove the object",
        "task_type": "removal",
        "input_quality": "original",
        "seed": 1,
        "num_inference_steps": 1,
        "input_image": b64(files[0]),
        "conditional_images": [b64(files[1])],
        **fields,
    }


def insertion(image: Image.Image, mask: Image.Image, **fields: Any) -> Json:
    """With a blue object from a second picture, and its mask."""
    blue = Image.new("RGB", (SIDE, SIDE), (40, 40, 200))
    second = {"reference_image": b64(encoded(blue)), "reference_mask_R": b64(encoded(square()))}
    return removal(image, mask, task_type="insertion", **(second | fields))


def opened(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data)))


async def edited(client: WebClient, request: Json) -> Pixels:
    _, result = await client.finish(request)
    return np.asarray(opened(result["image"]).convert("RGB"))


def shown(data: bytes) -> Pixels:
    """What a browser shows of a file."""
    file = Image.open(io.BytesIO(data))
    found = file.info.get("icc_profile")
    picture = file.convert("RGB")
    if found is not None:
        meant = ImageCms.ImageCmsProfile(io.BytesIO(found))
        converted = ImageCms.profileToProfile(picture, meant, ImageCms.createProfile("sRGB"))
        assert converted is not None
        picture = converted
    return np.asarray(picture)


def is_red(pixels: Pixels) -> npt.NDArray[np.bool_]:
    red: npt.NDArray[np.bool_] = pixels[..., 0].astype(int) - pixels[..., 1] > 90
    return red


# Sanster/IOPaint#437, OpenDisplay/Home_Assistant_Integration#73: wide-gamut photographs lose colour
@pytest.mark.parametrize("task", ["removal", "white-balance"])
async def test_a_profile_s_colours_are_edited_and_given_back(client: WebClient, task: str) -> None:
    tagged = encoded(Image.new("RGB", (SIDE, SIDE), (120, 100, 80)), icc_profile=profile())
    twin = encoded(Image.fromarray(shown(tagged)))
    full = [
        await edited(client, removal(file, square(), task_type=task)) for file in (tagged, twin)
    ]
    assert np.abs(full[0].astype(int) - full[1]).max() <= 4
    task_id = await client.submit(removal(tagged, square(), task_type=task, region="auto"))
    await client.follow(task_id)
    answers = [
        await client.http.get(f"/api/generate/result-image/{task_id}"),
        await client.http.get(f"/api/visualization/{task_id}/generated"),
    ]
    right = await edited(client, removal(twin, square(), task_type=task, region="auto"))
    for answer in answers:
        assert np.abs(shown(answer.content).astype(int) - right).mean() < 4


# AUTOMATIC1111/stable-diffusion-webui#3628, Sanster/IOPaint#419, #185: photographs that EXIF turns
@pytest.mark.parametrize("orientation", [6, 7])
async def test_masks_and_points_lie_on_what_is_shown(client: WebClient, orientation: int) -> None:
    stored = Image.new("RGB", (300, 200), GREEN)
    ImageDraw.Draw(stored).rectangle((20, 20, 80, 80), fill=RED)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(stored, "JPEG", exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    red = is_red(np.asarray(upright))
    mask = np.where(red, np.uint8(255), np.uint8(0))
    for region in REGIONS:
        request = removal(file, Image.fromarray(mask), mask_tool_type="brush", region=region)
        _, result = await client.finish(request)
        picture = opened(result["image"])
        assert picture.size == upright.size
        assert 0x0112 not in picture.getexif()
        assert is_red(np.asarray(picture.convert("RGB"))).sum() < red.sum() / 20
    rows, columns = np.nonzero(red)
    point = [int(columns.mean()), int(rows.mean())]
    body = {"image": b64(file), "points": [point]}
    found = (await client.http.post("/api/smart-mask", json=body)).json()
    masked = np.asarray(opened(found["mask_base64"]).convert("L"))
    assert masked.shape == red.shape
    assert masked[point[1], point[0]] > 127


def strokes(colour: tuple[int, ...]) -> Image.Image:
    mask = Image.new("RGBA", (SIDE, SIDE))
    ImageDraw.Draw(mask).rectangle(SQUARE, fill=colour)
    return mask


def with_hole(picture: Image.Image) -> Image.Image:
    holed = picture.convert("RGBA")
    holed.putalpha(ImageOps.invert(square()))
    return holed


# Mikubill/sd-webui-controlnet#3079, vercel/ai#14360, stdapi-ai/stdapi.ai#75: masks as alpha
@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("white strokes", strokes((255, 255, 255, 255))),
        ("red strokes", strokes((255, 0, 0, 255))),
        ("a black hole", with_hole(Image.new("RGB", (SIDE, SIDE)))),
        ("the picture with a hole", with_hole(scene())),
        ("a light picture with a hole", with_hole(scene((235, 238, 235)))),
    ],
)
async def test_a_transparent_mask_edits_what_the_opaque_one_does(
    client: WebClient, name: str, mask: Image.Image
) -> None:
    meant = await edited(client, removal(scene(), square()))
    assert (await edited(client, removal(scene(), mask)) == meant).all()
    files = [encoded(mask, "WEBP", lossless=True, exact=True), encoded(mask)]
    cut = [
        (
            await client.http.post(
                "/api/image-utils/extract-object",
                json={"image": b64(encoded(scene())), "mask": b64(each)},
            )
        ).json()["extracted_image"]
        for each in (*files, encoded(square()))
    ]
    assert len(set(cut)) == 1


# huggingface/diffusers#14322, AUTOMATIC1111/stable-diffusion-webui#15579: a mask of nothing
@pytest.mark.parametrize("task", ["removal", "insertion"])
@pytest.mark.parametrize("region", REGIONS)
async def test_a_mask_of_nothing_is_refused_before_any_step(
    client: WebClient, task: str, region: str
) -> None:
    for value in (0, 127):
        body = removal(scene(), square(value), task_type=task, region=region)
        answer = await client.http.post("/api/generate/async", json=body)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith(
            "conditional_images.0: No object found in mask (no white pixels)"
        )


# NimaNzrii/comfyui-photoshop#27, advimman/lama#181: masks as JPEG
# Sanster/IOPaint#185, KeyserDSoze/Rystem.OpenAi#17: masks of another size
@pytest.mark.parametrize("region", REGIONS)
async def test_a_mask_of_another_size_or_format_covers_the_same_part(
    client: WebClient, region: str
) -> None:
    masks = [encoded(square(), "JPEG", quality=30)]
    for side in (128, 257, 512):
        edges = [round(edge * side / SIDE) for edge in (90, 90, 167, 167)]
        other = Image.new("L", (side, side))
        ImageDraw.Draw(other).rectangle((*edges[:2], edges[2] - 1, edges[3] - 1), fill=255)
        masks.append(encoded(other))
    for mask in masks:
        request = removal(scene(), mask, region=region)
        _, result = await client.finish(request)
        shown_as = dict(
            zip(
                result["debug_info"]["conditional_labels"],
                result["debug_info"]["conditional_images"],
                strict=True,
            )
        )
        seen = np.asarray(opened(shown_as["mask"]).convert("L"))
        assert seen.shape == (SIDE, SIDE)
        rows, columns = np.nonzero(seen > 127)
        edges = [rows.min(), rows.max(), columns.min(), columns.max()]
        assert np.abs(np.subtract(edges, [90, 166, 90, 166])).max() <= 1
        seen = seen.copy()
        seen[80:177, 80:177] = 0
        assert not seen.any()


# AUTOMATIC1111/stable-diffusion-webui#14024, lllyasviel/Fooocus#1788: a seam at half a mask
@pytest.mark.parametrize("region", REGIONS)
async def test_a_soft_object_fades_in_without_a_seam(client: WebClient, region: str) -> None:
    ramp = np.zeros((SIDE, SIDE), np.uint8)
    ramp[64:192, 64:192] = np.linspace(0, 255, 128).round().astype(np.uint8)
    request = insertion(
        scene(),
        square(box=(64, 64, 191, 191)),
        reference_mask_R=b64(encoded(Image.fromarray(ramp))),
        region=region,
    )
    found = await edited(client, request)
    source = np.asarray(scene())
    change = np.abs(found.astype(int) - source)[170:185].mean(axis=(0, 2))
    # The object is where the ramp is above its half. With `auto` that lies in the mask's middle.
    start = 64 if region == "full" else 32
    assert change[: start - 4].max() == 0
    assert np.abs(np.diff(change[start : start + 121])).max() < 20


# huggingface/diffusers#14322: one pixel, one line
@pytest.mark.parametrize("kind", ["pixel", "line", "checkerboard"])
async def test_the_smallest_masks_are_edited_and_change_nothing_else(
    client: WebClient, kind: str
) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if kind == "pixel":
        mask[128, 128] = 255
    elif kind == "line":
        mask[128] = 255
    else:
        mask[:] = np.indices(mask.shape).sum(axis=0) % 2 * 255
    source = texture((SIDE, SIDE))
    found = await edited(client, removal(source, Image.fromarray(mask), region="auto"))
    rows = np.abs(np.arange(SIDE) - 128) > 6
    if kind != "checkerboard":
        assert (found[rows] == np.asarray(source)[rows]).all()
    request = insertion(source, Image.fromarray(mask))
    events = await client.follow(await client.submit(request))
    if kind == "line":
        assert events[-1]["status"] == "done"
    else:
        assert events[-1]["error"].startswith("400: conditional_images.0: ")


# QwenLM/Qwen-Image-Edit#229 and Qwen-Image#160, mcmonkeyprojects/SwarmUI#400: the content shifts
# Interpause/auto-sd-paint-ext#1, mflux-community/mflux#385: strips
@pytest.mark.parametrize("size", [(301, 207), (51, 1024), (33, 47)])
async def test_an_odd_size_comes_back_exact_and_in_place(
    client: WebClient, size: tuple[int, int]
) -> None:
    picture = texture(size)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse((10, 10, 22, 22), fill=255)
    source = np.asarray(picture)
    for region in REGIONS:
        found = await edited(client, removal(picture, mask, region=region))
        assert found.shape == source.shape
        # No shift fits better than none.
        inner = np.s_[8:-8, 8:-8]
        errors = {
            (dx, dy): np.abs(
                np.roll(found, (dy, dx), (0, 1))[inner].astype(int) - source[inner]
            ).mean()
            for dx in (-2, -1, 0, 1, 2)
            for dy in (-2, -1, 0, 1, 2)
        }
        assert min(errors, key=lambda shift: errors[shift]) == (0, 0)
    far = np.ones(size[::-1], np.bool_)
    far[:40, :40] = False
    assert (found[far] == source[far]).all()


# vllm-project/vllm-omni#1265, #7283: explicit width and height of another aspect
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"width": 512}, (512, SIDE)),
        ({"width": 256, "height": 512}, (256, 512)),
    ],
)
async def test_an_asked_size_is_exact_and_the_object_in_its_place(
    client: WebClient, asked: Json, size: tuple[int, int], region: str
) -> None:
    found = await edited(client, insertion(scene(), square(), region=region, **asked))
    assert found.shape[1::-1] == size
    blue = found[..., 2].astype(int) - found[..., 0] > 60
    rows, columns = np.nonzero(blue)
    edges = np.array([columns.min(), columns.max(), rows.min(), rows.max()], float)
    edges *= np.repeat(np.divide(SIDE, size), 2)
    assert np.abs(edges - [90, 166, 90, 166]).max() <= 4


# Comfy-Org/ComfyUI#7194, huggingface/diffusers#10204, invoke-ai/InvokeAI#7539: edit upon edit
@pytest.mark.parametrize("kind", ["removal", "two sources"])
async def test_edit_upon_edit_leaves_the_rest_alone(client: WebClient, kind: str) -> None:
    first = texture((250, 250))
    picture, touched = first, np.zeros((250, 250), np.bool_)
    everywhere = b64(encoded(square(box=(0, 0, SIDE, SIDE))))
    for start in (20, 60, 100, 140, 180):
        box = (start, start, start + 24, start + 24)
        mask = Image.new("L", first.size)
        ImageDraw.Draw(mask).rectangle(box, fill=255)
        touched[start - 8 : start + 33, start - 8 : start + 33] = True
        if kind == "removal":
            request = removal(picture, mask, region="auto")
        else:
            request = insertion(picture, mask, reference_mask_R=everywhere)
        picture = Image.fromarray(await edited(client, request))
    assert (np.asarray(picture)[~touched] == np.asarray(first)[~touched]).all()


# Sanster/IOPaint#123, enesmsahin/simple-lama-inpainting#11: large pictures come back soft
@pytest.mark.parametrize("region", REGIONS)
async def test_a_large_picture_stays_sharp(client: WebClient, region: str) -> None:
    picture = texture((4096, 256))
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).ellipse((2000, 110, 2020, 130), fill=255)
    found = await edited(client, removal(picture, mask, region=region))
    source = np.asarray(picture)
    assert (found[:, :1900] == source[:, :1900]).all()
    assert (found[:, 2120:] == source[:, 2120:]).all()


# tencent-ailab/IP-Adapter#106, mflux-community/mflux#385: a transparent, long reference
async def test_a_reference_s_hidden_pixels_are_not_inserted(client: WebClient) -> None:
    reference = Image.new("RGBA", (100, 400), (0, 255, 0, 0))
    mask = Image.new("L", reference.size)
    for picture, fill in ((reference, (30, 30, 220, 255)), (mask, 255)):
        ImageDraw.Draw(picture).ellipse((20, 170, 80, 230), fill=fill)
    files = [b64(encoded(each)) for each in (reference, mask)]
    for fields in (
        {"reference_image": files[0], "reference_mask_R": files[1]},
        {"reference_image": files[0], "reference_mask_R": None},
    ):
        found = await edited(client, insertion(scene(), square(), **fields))
        middle = found[110:146, 110:146].reshape(-1, 3).mean(axis=0)
        assert middle[1] < middle[2]


# vllm-project/vllm-omni#2541, computational-cell-analytics/micro-sam#1347: another's picture
async def test_two_edits_at_once_keep_their_own_pictures(client: WebClient) -> None:
    other = texture((SIDE, SIDE))
    requests = [
        removal(scene(), square()),
        removal(other, square(box=(20, 20, 100, 100))),
    ]
    alone = [await edited(client, request) for request in requests]
    together = await asyncio.gather(*(edited(client, request) for request in requests * 2))
    for found, right in zip(together, alone * 2, strict=True):
        assert (found == right).all()


# invoke-ai/InvokeAI#6049, Comfy-Org/ComfyUI#2566, replicate/cog#2214: a cancel hits another job
async def test_a_cancel_ends_the_named_job_alone(client: WebClient) -> None:
    request = removal(scene(), square(), num_inference_steps=3)
    ahead = await client.submit(long_edit())  # none of the others ends before the cancel
    ids = [await client.submit(request | {"seed": seed}) for seed in range(4)]
    await client.cancel(ids[2])
    await client.cancel(ahead)
    ends = [(await client.follow(task_id))[-1]["status"] for task_id in ids]
    assert ends == ["done", "done", "cancelled", "done"]
    # Too late for the first, and no business of the next.
    next_id = await client.submit(request)
    await client.cancel(ids[0])
    events = await client.follow(next_id)
    assert events[-1]["status"] == "done"
    assert events[-1]["current_step"] == 3
