from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from frontend.domain.masks import Picture
from frontend.errors import InvalidInputError, UnavailableError
from frontend.pictures import workers as images
from frontend.pictures.image_bounds import FORMATS
from frontend.pictures.workers import ImageWorkers, image_format
from frontend.settings import Settings
from model_kit.pictures import decode_rgb
from tests.fakes.pictures import b64, encoded, png
from tests.frontend.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

Pixels = npt.NDArray[np.uint8]

MODES = {"PNG": "RGBA", "JPEG": "RGB", "WEBP": "RGBA", "BMP": "RGB", "GIF": "P", "TIFF": "L"}


@pytest.fixture
def workers() -> Iterator[ImageWorkers]:
    opened = ImageWorkers(Settings(max_image_pixels=10_000, max_mask_pixels=10_000))
    yield opened
    opened.close()


@pytest.mark.parametrize("image_type", FORMATS)
async def test_every_format_is_passed_on_as_it_came(workers: ImageWorkers, image_type: str) -> None:
    data = encoded(image_type, mode=MODES[image_type])
    assert await workers.read("field", b64(data)) == data
    assert image_format(data) == image_type.lower()


async def test_a_jpeg_of_several_pictures_is_a_jpeg() -> None:
    buffer = io.BytesIO()
    first, second = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "red")
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    assert image_format(buffer.getvalue()) == "jpeg"


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "data:;base64,", ""])
async def test_plain_base64_and_data_urls(workers: ImageWorkers, prefix: str) -> None:
    assert await workers.read("field", prefix + b64(png())) == png()


async def test_broken_lines_are_joined(workers: ImageWorkers) -> None:
    text = b64(png())
    assert await workers.read("field", f"{text[:40]}\r\n{text[40:]}\n") == png()


async def test_cut_outs_and_displays_wait_apart_and_not_without_bound(
    workers: ImageWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(*_: Any) -> tuple[bytes, str]:
        begun.set()
        go_on.wait(60)
        return b"", "image/webp"

    monkeypatch.setattr(images, "_webp", wait)
    waiting = [asyncio.create_task(workers.webp(b"")) for _ in range(images.MAX_EXPORTS)]
    await asyncio.to_thread(begun.wait, 60)
    with pytest.raises(UnavailableError, match="busy with pictures"):
        await workers.extract(b64(png()), b64(png()))
    assert await workers.read("field", b64(png())) == png()  # nobody's edit waits for them
    go_on.set()
    assert await asyncio.gather(*waiting) == [(b"", "image/webp")] * images.MAX_EXPORTS
    with pytest.raises(InvalidInputError, match="No object found"):
        await workers.extract(b64(png()), b64(png()))


async def test_the_largest_picture_passes_and_one_more_does_not(workers: ImageWorkers) -> None:
    largest = encoded(size=(100, 100), mode="1")
    assert await workers.read("field", b64(largest)) == largest
    with pytest.raises(InvalidInputError, match="field: 101x100 is more than the 10000 pixels"):
        await workers.read("field", b64(encoded(size=(101, 100), mode="1")))


async def test_an_error_tells_neither_addresses_nor_paths(workers: ImageWorkers) -> None:
    for data in (b"", b"hello", png()[:50], encoded("TIFF")[:100]):
        with pytest.raises(InvalidInputError) as caught:
            await workers.read("field", b64(data))
        assert caught.value.detail.startswith("field: Invalid base64 image data or unsupported")
        assert "0x" not in caught.value.detail


async def test_the_event_loop_goes_on_and_few_threads_work(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    go_on = threading.Event()

    def slow(field: str, text: str, max_pixels: int) -> bytes:
        seen.add(threading.current_thread().name)
        go_on.wait(60)
        return b""

    monkeypatch.setattr(images, "_read", slow)
    workers = ImageWorkers(Settings(image_workers=2))
    reading = [asyncio.create_task(workers.read("field", "")) for _ in range(6)]
    await eventually(lambda: len(seen) == 2)
    for _ in range(7):
        await asyncio.sleep(0.005)
    assert not any(task.done() for task in reading)
    go_on.set()
    await asyncio.gather(*reading)
    assert len(seen) == 2
    workers.close()


async def test_the_same_text_has_the_same_digest(workers: ImageWorkers) -> None:
    one, other = await workers.digest("QUJD"), await workers.digest("QUJE")
    assert one == await workers.digest("QUJD") != other
    assert len(one) == 32


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", ""])
async def test_a_picture_is_passed_on_unseen(workers: ImageWorkers, prefix: str) -> None:
    picture = await workers.picture(f"{prefix}QU\nJD", b"digest")
    assert picture == Picture(b"ABC", hashlib.sha256(b"ABC").hexdigest(), b"digest")
    assert await workers.encoded("mask", f"{prefix}QU\nJD") == b"ABC"


@pytest.mark.parametrize("text", ["????", "QUJ", "ảnh", "\ud800", "QUJD=A"])
async def test_what_is_not_base64_is_refused(workers: ImageWorkers, text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^Failed to cache image: not base64 \("):
        await workers.picture(text, await workers.digest(text))
    with pytest.raises(InvalidInputError, match=r"^mask: Invalid base64 .*: not base64 \("):
        await workers.encoded("mask", text)


def pixels(seed: int, *shape: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def written(picture: Pixels, image_type: str = "PNG", **options: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, image_type, **options)
    return b64(buffer.getvalue())


async def extract(workers: ImageWorkers, image: str, mask: str) -> Pixels:
    with Image.open(io.BytesIO(await workers.extract(image, mask))) as cut:
        assert (cut.format, cut.mode) == ("PNG", "RGBA")
        return np.asarray(cut)


WHITE = written(np.full((1, 1), 255, np.uint8))


async def test_alpha_is_the_mask_and_colours_stay(workers: ImageWorkers) -> None:
    picture, mask = pixels(0, 7, 9, 3), pixels(1, 7, 9)
    cut = await extract(workers, written(picture), written(mask))
    assert (cut == np.dstack([picture, mask])).all()


async def test_a_mask_of_another_size_is_stretched_without_blur(workers: ImageWorkers) -> None:
    mask = np.array([[255, 0], [60, 200]], np.uint8)
    cut = await extract(workers, written(pixels(0, 8, 6, 3)), written(mask))
    assert (cut[..., 3] == np.kron(mask, np.ones((4, 3), np.uint8))).all()


async def test_a_coloured_mask_counts_by_its_luma(workers: ImageWorkers) -> None:
    mask = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)
    cut = await extract(workers, written(pixels(0, 1, 2, 3)), written(mask))
    assert cut[..., 3].tolist() == [[76, 150]]
    with pytest.raises(InvalidInputError, match="No object found in mask"):
        await extract(workers, written(pixels(0, 1, 1, 3)), written(mask[:, :1]))


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_picture_and_mask_are_turned_upright(workers: ImageWorkers, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = written(pixels(0, 5, 3, 3), exif=exif)
    mask = written(pixels(1, 5, 3), exif=exif)
    cut = await extract(workers, image, mask)
    assert (cut[..., :3] == decode_rgb(base64.b64decode(image), 100)).all()
    assert (cut[..., 3] == decode_rgb(base64.b64decode(mask), 100)[..., 0]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B"])
async def test_colours_are_those_that_the_models_see(workers: ImageWorkers, mode: str) -> None:
    if mode.startswith("I;16"):
        deep = (pixels(0, 6, 6).astype(np.uint16) * 255) + 77
        drawn = Image.frombytes(mode, (6, 6), deep.astype(">u2" if mode[-1] == "B" else "<u2"))
    else:
        drawn = Image.fromarray(pixels(0, 6, 6, 4)).convert(mode)
    buffer = io.BytesIO()
    drawn.save(buffer, "TIFF" if mode in ("CMYK", "I;16B") else "PNG")
    cut = await extract(workers, b64(buffer.getvalue()), WHITE)
    assert (cut[..., :3] == decode_rgb(buffer.getvalue(), 100)).all()
    assert (cut[..., 3] == 255).all()


@pytest.mark.parametrize("value", [0, 100, 128])
async def test_an_empty_mask_has_no_object(workers: ImageWorkers, value: int) -> None:
    mask = written(np.full((4, 4), value, np.uint8))
    with pytest.raises(InvalidInputError) as caught:
        await workers.extract(written(pixels(0, 4, 4, 3)), mask)
    assert caught.value.detail == "No object found in mask (no white pixels)"


async def test_one_bright_pixel_is_an_object(workers: ImageWorkers) -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[3, 2] = 129
    assert (await extract(workers, written(pixels(0, 4, 4, 3)), written(mask)))[3, 2, 3] == 129


@pytest.mark.parametrize("field", ["image", "mask"])
async def test_both_pictures_are_bounded(workers: ImageWorkers, field: str) -> None:
    large = written(np.full((101, 100), 255, np.uint8))
    images = {"image": WHITE, "mask": WHITE, field: large}
    with pytest.raises(InvalidInputError, match=f"^{field}: 100x101 is more than the 10000"):
        await workers.extract(**images)


@pytest.mark.parametrize(("size", "shown"), [((3000, 1500), (2560, 1280)), ((20, 10), (20, 10))])
async def test_a_picture_for_display_is_capped(
    workers: ImageWorkers, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    data, media_type = await workers.webp(png(size))
    assert media_type == "image/webp"
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("WEBP", shown)


async def test_png_is_sent_where_webp_fails(
    workers: ImageWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "WEBP_QUALITY", 1000)
    assert await workers.webp(png()) == (png(), "image/png")
