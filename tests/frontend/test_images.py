from __future__ import annotations

import asyncio
import io
import threading
import time
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from frontend import images
from frontend.errors import InvalidInputError
from frontend.image_bounds import FORMATS
from frontend.images import ImageWorkers, image_format
from frontend.settings import Settings
from tests.fakes.pictures import b64, encoded, png

if TYPE_CHECKING:
    from collections.abc import Iterator

MODES = {"PNG": "RGBA", "JPEG": "RGB", "WEBP": "RGBA", "BMP": "RGB", "GIF": "P", "TIFF": "L"}


@pytest.fixture
def workers() -> Iterator[ImageWorkers]:
    opened = ImageWorkers(Settings(max_image_pixels=10_000))
    yield opened
    opened.close()


@pytest.mark.parametrize("image_type", FORMATS)
async def test_every_format_is_passed_on_as_it_came(workers: ImageWorkers, image_type: str) -> None:
    data = encoded(image_type, mode=MODES[image_type])
    assert await workers.read("field", b64(data)) == data
    assert image_format(data) == image_type.lower()


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "data:;base64,", ""])
async def test_plain_base64_and_data_urls(workers: ImageWorkers, prefix: str) -> None:
    assert await workers.read("field", prefix + b64(png())) == png()


async def test_broken_lines_are_joined(workers: ImageWorkers) -> None:
    text = b64(png())
    assert await workers.read("field", f"{text[:40]}\r\n{text[40:]}\n") == png()


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

    def slow(field: str, text: str, max_pixels: int) -> bytes:
        seen.add(threading.current_thread().name)
        time.sleep(0.05)
        return b""

    monkeypatch.setattr(images, "_read", slow)
    workers = ImageWorkers(Settings(image_workers=2))
    reading = [asyncio.create_task(workers.read("field", "")) for _ in range(6)]
    ticks = 0
    while not all(task.done() for task in reading):
        await asyncio.sleep(0.005)
        ticks += 1
    assert ticks > 6
    assert len(seen) == 2
    workers.close()


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
