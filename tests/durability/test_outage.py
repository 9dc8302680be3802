"""The store is away for longer than leases last: nothing is begun twice, and nobody hangs."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from frontend.jobs import places
from tests.durability.frontends import PATIENCE_S, Frontend, Survivor, all_started
from tests.durability.logs import check_log
from tests.fakes.link import Link
from tests.fakes.small_disk import SmallDisk, may_mount
from tests.fakes.web_client import WebClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.fakes.postgres import PostgresServer
    from tests.fakes.triton_server import FakeTriton

LEASE_S = 3.0
STEPS = 20


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock without which nobody writes to a file of SQLite, as a broken program would."""
    file = sqlite3.connect(folder / places.FILE, timeout=PATIENCE_S, isolation_level=None)
    with contextlib.closing(file):
        file.execute("BEGIN IMMEDIATE")
        yield


class Shared:
    """Frontends on one store that a test takes away.

    Args:
        folder: for their states and logs.
        triton: of all frontends.
        postgres: their database; None: a file of SQLite.
    """

    def __init__(self, folder: Path, triton: FakeTriton, postgres: PostgresServer | None) -> None:
        self._folder = folder
        self._triton = triton
        self._postgres = postgres
        self._url = postgres.new_database() if postgres else ""

    @contextlib.asynccontextmanager
    async def frontends(self, *names: str, url: str = "") -> AsyncIterator[list[Frontend]]:
        """Start frontends, perhaps with another URL of their database."""
        made = []
        for name in names:
            own = self._folder / name
            own.mkdir()
            settings = {"STORE_URL": url or self._url, "MAX_IN_FLIGHT": "1"}
            if not self._url:
                settings["STATE_FOLDER"] = str(self._folder)
            made.append(Frontend(own, self._triton.url, LEASE_S, **settings))
        async with all_started(made):
            yield made

    @contextlib.contextmanager
    def on_small_disk(self) -> Iterator[SmallDisk]:
        """Have the database's tables on a disk of their own."""
        assert self._postgres is not None
        with self._postgres.on_small_disk(self._url) as (self._url, disk):
            yield disk

    @contextlib.asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Keep everybody from writing to the store; a database even from asking it."""
        if self._postgres is None:
            with locked(self._folder):
                yield
            return
        await asyncio.to_thread(self._postgres.kill)
        yield
        await asyncio.to_thread(self._postgres.start)

    def through(self, link: Link) -> str:
        """Return the database's URL by way of a link."""
        assert self._postgres is not None
        return self._url.replace(f":{self._postgres.port}/", f":{link.port}/")


@pytest.fixture(params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, triton: FakeTriton) -> Shared:
    postgres = request.getfixturevalue("postgres") if request.param == "postgres" else None
    return Shared(tmp_path, triton, postgres)


async def processing(frontend: Frontend, *task_ids: str) -> None:
    """Return once the logs of these jobs say that they run."""
    async with WebClient(frontend.url) as client:
        for task_id in task_ids:
            await client.wait_status(task_id, "processing")


@pytest.mark.parametrize("names", [["one"], ["one", "two"]], ids=["alone", "two"])
async def test_an_outage_of_several_leases_repeats_nothing(
    shared: Shared, triton: FakeTriton, names: list[str]
) -> None:
    triton.hold()
    async with shared.frontends(*names) as frontends:
        clients = [Survivor(each.url) for each in frontends]
        ids = [await client.submit(num_inference_steps=STEPS) for client in clients]
        await processing(frontends[0], *ids)  # each frontend runs one
        following = [
            asyncio.create_task(client.follow(task_id))
            for client, task_id in zip(clients, ids, strict=True)
        ]
        async with shared.away():
            await asyncio.sleep(2.5 * LEASE_S)
            if len(ids) > 1:  # one ends meanwhile, the other one runs on
                triton.release()
                async with asyncio.timeout(PATIENCE_S):
                    while triton.live > 1:
                        await asyncio.sleep(0.001)
                triton.hold()
        # Who judges leases has the time to do so before the edit ends.
        await asyncio.sleep(1.5 * LEASE_S)
        triton.release()
        for events in await asyncio.gather(*following):
            check_log(events, "done")
            assert events[-1]["restarts"] == 0
            steps = [each["current_step"] for each in events if each["stage"] == "denoising"]
            assert steps == list(range(1, STEPS + 1))
    assert sorted(triton.starts) == sorted(f"{task_id}.1" for task_id in ids)
    assert triton.cancels == []
    assert triton.cut_streams == []


@pytest.fixture(params=["sqlite", "postgres"])
def shared_disk(
    request: pytest.FixtureRequest, tmp_path: Path, triton: FakeTriton
) -> Iterator[tuple[Shared, SmallDisk]]:
    """A store on a disk of its own."""
    if request.param == "sqlite":
        with SmallDisk(tmp_path / "state") as disk:
            yield Shared(disk.folder, triton, None), disk
    else:
        shared = Shared(tmp_path, triton, request.getfixturevalue("postgres"))
        with shared.on_small_disk() as disk:
            yield shared, disk


@pytest.mark.skipif(not may_mount(), reason="only root may mount a disk that can be full")
async def test_a_full_disk_repeats_nothing_and_takes_no_new_edit(
    shared_disk: tuple[Shared, SmallDisk], triton: FakeTriton
) -> None:
    shared, disk = shared_disk
    triton.hold()
    async with shared.frontends("one", "two") as frontends:
        clients = [Survivor(each.url) for each in frontends]
        ids = [await client.submit(num_inference_steps=STEPS) for client in clients]
        await processing(frontends[0], *ids)  # each frontend runs one
        with disk.full():
            triton.release()  # what they tell has to wait
            for client in clients:
                await client.refused()
            await asyncio.sleep(2.5 * LEASE_S)
        for client, task_id in zip(clients, ids, strict=True):
            check_log(events := await client.follow(task_id), "done")
            assert events[-1]["restarts"] == 0
            await client.submit()
    assert {each for each in triton.starts if each.split(".")[0] in ids} == {
        f"{task_id}.1" for task_id in ids
    }


async def test_who_alone_is_cut_from_the_store_loses_its_job(
    tmp_path: Path, triton: FakeTriton, postgres: PostgresServer
) -> None:
    shared = Shared(tmp_path, triton, postgres)
    triton.hold()
    async with (
        Link(postgres.port) as link,
        shared.frontends("cut", url=shared.through(link)) as [cut],
    ):
        task_id = await Survivor(cut.url).submit(num_inference_steps=STEPS)
        await processing(cut, task_id)
        async with shared.frontends("other") as [other]:
            link.cut()
            async with asyncio.timeout(PATIENCE_S):
                while len(triton.starts) < 2:
                    await asyncio.sleep(0.02)
                # It learns of it, and stops what nobody wants any more.
                link.heal()
                while triton.in_band_cancels != [task_id] or triton.live > 1:
                    await asyncio.sleep(0.02)
            triton.release()
            events = await Survivor(other.url).follow(task_id)
            check_log(events, "done")
            assert events[-1]["restarts"] == 1
    assert triton.starts == [f"{task_id}.1", f"{task_id}.2"]


async def test_who_stops_waits_for_no_store(shared: Shared, triton: FakeTriton) -> None:
    triton.hold()
    async with shared.frontends("one") as [frontend]:
        task_id = await Survivor(frontend.url).submit(num_inference_steps=STEPS)
        await processing(frontend, task_id)
        async with shared.away():
            triton.release()
            async with asyncio.timeout(PATIENCE_S):
                while triton.live:  # the end is in its hands
                    await asyncio.sleep(0.02)
            await frontend.stop()
        await frontend.start()
        check_log(await Survivor(frontend.url).follow(task_id), "done")
    assert triton.starts == [f"{task_id}.1", f"{task_id}.2"]
