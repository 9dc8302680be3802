"""Frontends on one PostgreSQL: it is killed and comes back, and any frontend has any job."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.durability.frontends import PATIENCE_S, Frontend, Survivor, all_started
from tests.durability.logs import check_log
from tests.fakes.web_client import WebClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.postgres import PostgresServer
    from tests.fakes.triton_server import FakeTriton

STEPS = 6


@contextlib.asynccontextmanager
async def two_frontends(
    folder: Path, triton: FakeTriton, postgres: PostgresServer, lease_s: float
) -> AsyncIterator[list[Frontend]]:
    """Start two frontends on one new database, each with a state folder of its own."""
    url = postgres.new_database()
    made = []
    for name in ("one", "two"):
        own = folder / name
        own.mkdir()
        made.append(Frontend(own, triton.url, lease_s, MAX_IN_FLIGHT="1", STORE_URL=url))
    async with all_started(made):
        yield made


async def started(triton: FakeTriton, count: int) -> None:
    """Return once Triton was given so many jobs."""
    async with asyncio.timeout(PATIENCE_S):
        while len(triton.starts) < count:
            await asyncio.sleep(0.02)


async def test_jobs_outlive_a_kill_of_the_database(
    tmp_path: Path, triton: FakeTriton, postgres: PostgresServer
) -> None:
    triton.hold()
    # A lease that is over in an outage may repeat a job; this one is not.
    async with two_frontends(tmp_path, triton, postgres, lease_s=PATIENCE_S) as frontends:
        clients = [Survivor(frontend.url) for frontend in (frontends * 2)]
        ids = [await client.submit(num_inference_steps=STEPS) for client in clients]
        await started(triton, 2)  # each frontend runs one, and two wait
        following = [
            asyncio.create_task(client.follow(task_id))
            for client, task_id in zip(clients, ids, strict=True)
        ]
        await asyncio.to_thread(postgres.kill)
        triton.release()  # the edits go on, and end, while there is no database
        late = Survivor(frontends[0].url)
        submitting = asyncio.create_task(late.submit(num_inference_steps=STEPS))
        await asyncio.to_thread(postgres.start)
        for events in await asyncio.gather(*following, late.follow(await submitting)):
            check_log(events, "done")
            assert events[-1]["restarts"] == 0
        # Nothing was begun twice, and everybody is told the same of every job.
        assert len(triton.starts) == len(set(triton.starts)) == len(ids) + 1
        for client, task_id in zip(clients, ids, strict=True):
            for frontend in frontends:
                stranger = Survivor(frontend.url)
                assert await stranger.follow(task_id) == list(client.log.values())
                assert (await stranger.result(task_id))["parameters_used"] == {"seed": 7}


@pytest.fixture
async def frontends(
    tmp_path: Path, triton: FakeTriton, postgres: PostgresServer
) -> AsyncIterator[list[Frontend]]:
    """Two on one database; no pause of a busy machine takes a job from one of them."""
    async with two_frontends(tmp_path, triton, postgres, lease_s=PATIENCE_S) as made:
        yield made


async def test_any_frontend_has_any_job(frontends: list[Frontend], triton: FakeTriton) -> None:
    triton.hold()
    here, there = (Survivor(frontend.url) for frontend in frontends)
    await here.submit(num_inference_steps=STEPS)
    await there.submit(num_inference_steps=STEPS)
    await started(triton, 2)
    waiting = await here.submit(num_inference_steps=STEPS)
    running = triton.starts[0].rpartition(".")[0]
    for task_id in (waiting, running):
        for frontend in frontends:
            await Survivor(frontend.url).cancel(task_id)
        logs = [await Survivor(frontend.url).follow(task_id) for frontend in frontends]
        assert logs[0] == logs[1]
        check_log(logs[0], "cancelled")
    assert not any(waiting in each for each in triton.starts)


async def test_what_a_killed_frontend_ran_another_one_runs(
    tmp_path: Path, triton: FakeTriton, postgres: PostgresServer
) -> None:
    triton.hold()
    # As long as the other one waits for the killed one. It outlasts the pauses of a busy machine.
    async with two_frontends(tmp_path, triton, postgres, lease_s=10.0) as [dying, living]:
        ids = [await Survivor(living.url).submit(num_inference_steps=STEPS) for _ in range(2)]
        await started(triton, 2)  # each frontend runs one
        async with WebClient(living.url) as client:
            for task_id in ids:  # else the log of one that is lost does not say that it was begun
                await client.wait_status(task_id, "processing")
        await dying.kill()
        triton.release()
        logs = [await Survivor(living.url).follow(task_id) for task_id in ids]
    for events in logs:
        check_log(events, "done")
    assert sum(events[-1]["restarts"] for events in logs) == 1
    assert len(triton.starts) == len(set(triton.starts)) == 3
