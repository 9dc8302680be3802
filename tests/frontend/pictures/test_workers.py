from __future__ import annotations

import asyncio
import io
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from frontend.errors import InvalidInputError, UnavailableError
from frontend.pictures.workers import MAX_EXPORTS, ImageWorkers
from frontend.settings import Settings
from tests.fakes.pictures import b64, encoded, png
from tests.frontend.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def workers() -> Iterator[ImageWorkers]:
    opened = ImageWorkers(Settings(max_image_pixels=10_000, max_mask_pixels=10_000))
    yield opened
    opened.close()


async def test_cut_outs_and_displays_wait_apart_and_not_without_bound(
    workers: ImageWorkers,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        go_on.wait(60)
        return "made"

    waiting = [asyncio.create_task(workers.export(slow)) for _ in range(MAX_EXPORTS)]
    await asyncio.to_thread(begun.wait, 60)
    for refused in (workers.extract(b64(png()), b64(png())), workers.webp(png())):
        with pytest.raises(UnavailableError, match="busy with pictures"):
            await refused
    assert await workers.read("field", b64(png())) == png()  # nobody's edit waits for them
    go_on.set()
    assert await asyncio.gather(*waiting) == ["made"] * MAX_EXPORTS
    with pytest.raises(InvalidInputError, match="No object found"):
        await workers.extract(b64(png()), b64(png()))


async def test_the_largest_picture_passes_and_one_more_does_not(workers: ImageWorkers) -> None:
    largest = encoded(size=(100, 100), mode="1")
    assert await workers.read("field", b64(largest)) == largest
    with pytest.raises(InvalidInputError, match="field: 101x100 is more than the 10000 pixels"):
        await workers.read("field", b64(encoded(size=(101, 100), mode="1")))


async def test_the_event_loop_goes_on_and_few_threads_work() -> None:
    seen: set[str] = set()
    go_on = threading.Event()

    def slow() -> None:
        seen.add(threading.current_thread().name)
        go_on.wait(60)

    workers = ImageWorkers(Settings(image_workers=2))
    reading = [asyncio.create_task(workers.run(slow)) for _ in range(6)]
    await eventually(lambda: len(seen) == 2)
    for _ in range(7):
        await asyncio.sleep(0.005)
    assert not any(task.done() for task in reading)
    go_on.set()
    await asyncio.gather(*reading)
    assert len(seen) == 2
    workers.close()


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
        await workers.extract(**images)
