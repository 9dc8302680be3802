from __future__ import annotations

import asyncio
import io
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from frontend.errors import ClosingError, InvalidInputError, UnavailableError
from frontend.pictures import codecs
from frontend.pictures.workers import FEW_BYTES, MAX_DISPLAYS, ImageWorkers
from frontend.settings import Settings
from model_kit.raster import size_of
from tests.fakes.pictures import b64, encoded, png

if TYPE_CHECKING:
    from collections.abc import Iterator

Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def workers() -> Iterator[ImageWorkers]:
    opened = ImageWorkers(
        Settings(max_image_pixels=10_000, max_mask_pixels=10_000, owner_fraction=1)
    )
    yield opened
    opened.close()


async def test_displays_wait_apart_and_not_without_bound(
    workers: ImageWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    in_memory = 0

    async def read() -> bytes:
        nonlocal in_memory
        in_memory += 1
        return b""

    def slow(png: bytes) -> tuple[bytes, str]:
        begun.set()
        go_on.wait(60)
        return png, "made"

    monkeypatch.setattr(codecs, "webp", slow)
    waiting = [asyncio.create_task(workers.webp("me", read)) for _ in range(1 + MAX_DISPLAYS)]
    await asyncio.to_thread(begun.wait, 60)
    with pytest.raises(UnavailableError, match="busy with pictures"):
        await workers.webp("me", read)
    assert in_memory == 1
    async with workers.edit("me") as images:  # nobody's edit waits for them
        assert (await images.original("field", b64(png())))[1] == png()
    go_on.set()
    assert await asyncio.gather(*waiting) == [(b"", "made")] * (1 + MAX_DISPLAYS)


async def test_closed_workers_finish_what_they_have_and_take_no_more(
    workers: ImageWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_text: str) -> bytes:
        begun.set()
        go_on.wait(60)
        return b"digest"

    monkeypatch.setattr(codecs, "digest", slow)
    count = Settings().image_workers + 1  # one of them has not begun
    digesting = [asyncio.create_task(workers.digest("x" * FEW_BYTES)) for _ in range(count)]
    await asyncio.to_thread(begun.wait, 60)
    workers.close()
    go_on.set()
    assert await asyncio.gather(*digesting) == [b"digest"] * count
    with pytest.raises(ClosingError):
        await workers.digest("x" * FEW_BYTES)


async def test_the_largest_picture_passes_and_one_more_does_not(workers: ImageWorkers) -> None:
    largest = encoded(size=(100, 100), mode="1")
    async with workers.edit("me") as images:
        assert size_of(await images.picture("field", b64(largest))) == (100, 100)
        with pytest.raises(InvalidInputError, match="field: 101x100 is more than the 10000 pixels"):
            await images.picture("field", b64(encoded(size=(101, 100), mode="1")))


def written(picture: Pixels, image_type: str = "PNG", **options: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, image_type, **options)
    return b64(buffer.getvalue())


WHITE = written(np.full((1, 1), 255, np.uint8))


@pytest.mark.parametrize("field", ["image", "mask"])
async def test_both_pictures_are_bounded(workers: ImageWorkers, field: str) -> None:
    large = written(np.full((101, 100), 255, np.uint8))
    images = {"image": WHITE, "mask": WHITE, field: large}
    with pytest.raises(InvalidInputError, match=f"^{field}: 100x101 is more than the 10000"):
        await workers.extract("me", **images)
