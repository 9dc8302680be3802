"""Pictures that take for ever: their processes are killed, and harm nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from frontend.domain.masks import Picture
from frontend.errors import InvalidInputError, UnavailableError
from frontend.pictures import workers as module
from frontend.pictures.workers import MAX_WAITING, ImageWorkers
from frontend.settings import Settings
from model_kit.sandbox import Sandbox
from tests.frontend.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Read = Coroutine[Any, Any, object]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageWorkers]:
    """Workers for which every picture takes for ever."""
    sandbox = Sandbox("tests.frontend.pictures.slow_codecs")
    monkeypatch.setattr(module, "shared", lambda _: sandbox)
    monkeypatch.setattr(module, "seconds_for", lambda _: 60.0)
    opened = ImageWorkers(Settings(image_workers=2, owner_fraction=1))
    yield opened
    opened.close()
    sandbox.close()


async def edit_picture(workers: ImageWorkers, file: Path) -> None:
    async with workers.edit("me") as images:
        await images.picture("input_image", str(file))


async def edit_mask(workers: ImageWorkers, file: Path) -> None:
    async with workers.edit("me") as images:
        await images.mask("conditional_images.0", str(file))


async def click(workers: ImageWorkers, file: Path, *, forgotten: bool = False) -> None:
    data = str(file).encode()
    async with workers.shown("me", Picture(data, "id", data), forgotten=forgotten):
        pass


async def forgotten(workers: ImageWorkers, file: Path) -> None:
    await click(workers, file, forgotten=True)


async def rough_mask(workers: ImageWorkers, file: Path) -> None:
    async with workers.rough_mask("me", str(file).encode()):
        pass


async def cut_out(workers: ImageWorkers, file: Path) -> None:
    await workers.extract("me", str(file), str(file))


KINDS: dict[str, Callable[[ImageWorkers, Path], Read]] = {
    "input_image": edit_picture,
    "conditional_images.0": edit_mask,
    "Failed to cache image": click,
    "Failed to cache image, again": forgotten,
    "mask": rough_mask,
    "image or mask": cut_out,
}


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def running(file: Path) -> list[int]:
    found = []
    for pid in pids(file):
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


@pytest.mark.parametrize("kind", KINDS)
async def test_what_takes_too_long_is_refused_and_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    sandbox = Sandbox("tests.frontend.pictures.slow_codecs")
    monkeypatch.setattr(module, "shared", lambda _: sandbox)
    monkeypatch.setattr(module, "seconds_for", lambda _: 1.5)
    workers = ImageWorkers(Settings())
    field = kind.removesuffix(", again")
    with pytest.raises(InvalidInputError, match=rf"^{field}: takes longer than 1\.5 s to decode$"):
        await KINDS[kind](workers, tmp_path / "busy")
    assert len(pids(tmp_path / "busy")) == 1
    await eventually(lambda: not running(tmp_path / "busy"))
    workers.close()
    sandbox.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_picture_whose_client_has_left_is_killed(
    slow: ImageWorkers, tmp_path: Path, kind: str
) -> None:
    reading = asyncio.ensure_future(KINDS[kind](slow, tmp_path / "pids"))
    await eventually(lambda: running(tmp_path / "pids"))
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await eventually(lambda: not running(tmp_path / "pids"))


async def test_no_kind_of_work_waits_for_another(slow: ImageWorkers, tmp_path: Path) -> None:
    full = []
    for number, kind in enumerate(KINDS):
        file = tmp_path / str(number)
        if kind == "conditional_images.0":
            continue  # the same processes as the edit's other pictures
        full += [asyncio.ensure_future(KINDS[kind](slow, file)) for _ in range(3)]
        await eventually(lambda file=file: running(file))  # type: ignore[misc]
    for reading in full:
        reading.cancel()
    await asyncio.wait(full)


@pytest.mark.parametrize("kind", ["input_image", "image or mask"])
async def test_few_work_some_wait_and_the_rest_is_refused(
    slow: ImageWorkers, tmp_path: Path, kind: str
) -> None:
    file, most = tmp_path / "pids", 2 if kind == "input_image" else 1
    reading = [asyncio.ensure_future(KINDS[kind](slow, file)) for _ in range(most + MAX_WAITING)]
    await eventually(lambda: len(running(file)) == most)
    with pytest.raises(UnavailableError, match="busy with pictures"):
        await KINDS[kind](slow, file)
    # A place that is given back is taken by one that waits.
    before = pids(file)
    reading[0].cancel()
    await eventually(lambda: len(pids(file)) == most + 1)
    await eventually(lambda: len(running(file)) <= most)
    assert before == pids(file)[:most]
    for each in reading:
        each.cancel()
    await asyncio.wait(reading)


async def test_those_who_want_the_same_picture_share_one_process(
    slow: ImageWorkers, tmp_path: Path
) -> None:
    file, other = tmp_path / "pids", tmp_path / "other"
    asking = [asyncio.ensure_future(click(slow, file)) for _ in range(8)]
    await eventually(lambda: running(file))
    another = asyncio.ensure_future(click(slow, other))
    await eventually(lambda: running(other))  # they hold one process, not all
    for each in asking[:-1]:
        each.cancel()
    await asyncio.wait(asking[:-1])
    assert running(file)  # the last one still waits for it
    for each in (asking[-1], another):
        each.cancel()
    await asyncio.wait([asking[-1], another])
    await eventually(lambda: not running(file) and not running(other))
    assert len(pids(file)) == 1
