"""A frontend is killed at each point of a job's life; its job ends once, as if nothing had been."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.durability.frontends import PATIENCE_S, Frontend, Survivor
from tests.durability.logs import check_log
from tests.fakes.triton_server import task_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.triton_server import FakeTriton
    from tests.fakes.web_client import Json

MOMENTS = ("before", "within", "after")
STEPS = 6


def databases(moment: str) -> list[tuple[str, Any]]:
    """Return the values of `frontend` with their marks.

    Only within a transaction two databases may do different things with it.
    """
    return [("sqlite", ()), ("postgres", () if moment == "within" else pytest.mark.soak)]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.soak)])
async def frontend(
    tmp_path: Path, triton: FakeTriton, request: pytest.FixtureRequest
) -> AsyncIterator[Frontend]:
    settings: dict[str, Any] = {"MAX_IN_FLIGHT": "1"}
    if request.param == "postgres":
        settings["STORE_URL"] = request.getfixturevalue("postgres").new_database()
    # So long that only taking back explains a job that goes on, and that no pause of a busy machine
    # takes one away.
    made = Frontend(tmp_path, triton.url, lease_s=2 * PATIENCE_S, **settings)
    yield made
    await made.stop()


async def everybody_sees(frontend: Frontend, task_id: str, events: list[Json]) -> None:
    """Assert that one who comes late is told the same."""
    assert await Survivor(frontend.url).follow(task_id) == events


@pytest.mark.parametrize(
    ("frontend", "step", "moment"),
    [
        pytest.param(database, step, moment, marks=marks)
        for step in ("create", "claim", "append", "end")
        for moment in MOMENTS
        # A worker tries to claim before there is a job.
        if (step, moment) != ("claim", "before")
        for database, marks in databases(moment)
    ],
    indirect=["frontend"],
)
async def test_an_edit_ends_once_whatever_its_frontend_dies_in(
    frontend: Frontend, triton: FakeTriton, step: str, moment: str
) -> None:
    await frontend.start(kill_at=f"{step}.{moment}")
    client = Survivor(frontend.url)
    submitting = asyncio.create_task(client.submit(num_inference_steps=STEPS))
    await frontend.died()
    await frontend.start()
    task_id = await submitting
    events = await client.follow(task_id)
    check_log(events, "done")
    await everybody_sees(frontend, task_id, events)
    assert (await client.result(task_id))["parameters_used"] == {"seed": 7}
    # Triton had the job before an append or an end. What was committed is not done again.
    lost = step == "append" or (step, moment) in (("end", "before"), ("end", "within"))
    assert len(triton.starts) == 1 + lost
    claims = 1 + (lost or (step, moment) == ("claim", "after"))
    assert triton.starts[-1] == f"{task_id}.{claims}"
    assert {each.rpartition(".")[0] for each in triton.starts} == {task_id}
    assert events[-1]["restarts"] == lost


@pytest.mark.parametrize(
    ("frontend", "moment"),
    [
        pytest.param(database, moment, marks=marks)
        for moment in MOMENTS
        for database, marks in databases(moment)
    ],
    indirect=["frontend"],
)
@pytest.mark.parametrize("runs", [False, True], ids=["waiting", "running"])
async def test_a_cancel_is_kept_whatever_its_frontend_dies_in(
    frontend: Frontend, triton: FakeTriton, moment: str, runs: bool
) -> None:
    triton.hold()
    await frontend.start(kill_at=f"ask_cancel.{moment}")
    client = Survivor(frontend.url)
    first = await client.submit(num_inference_steps=STEPS)
    task_id = first if runs else await client.submit(num_inference_steps=STEPS)
    async with asyncio.timeout(PATIENCE_S):
        while f"{first}.1" not in triton.starts:
            await asyncio.sleep(0.02)
    cancelling = asyncio.create_task(client.cancel(task_id))
    await frontend.died()
    await frontend.start()
    await cancelling
    events = await client.follow(task_id)
    check_log(events, "cancelled")
    await everybody_sees(frontend, task_id, events)
    if not runs:
        triton.release()
        check_log(await Survivor(frontend.url).follow(first), "done")
        # Until the cancel is kept, a frontend that comes back may begin the job.
        assert moment != "after" or not any(task_id in each for each in triton.starts)


async def test_a_queue_outlives_kills_in_its_order(frontend: Frontend, triton: FakeTriton) -> None:
    await triton.engine.acquire()
    await frontend.start()
    clients = [Survivor(frontend.url) for _ in range(4)]
    ids = [await client.submit(num_inference_steps=STEPS) for client in clients]
    following = [
        asyncio.create_task(client.follow(task_id))
        for client, task_id in zip(clients, ids, strict=True)
    ]
    killed: set[str] = set()
    while len(killed) < 2:
        task_id = await waiting_at_engine(triton)
        if task_id in killed:  # one that dies a second time would end
            await triton.let_one()
            continue
        killed.add(task_id)
        await frontend.kill()
        async with asyncio.timeout(PATIENCE_S):
            while triton.at_engine:
                await asyncio.sleep(0.01)
        await frontend.start()
    triton.engine.release()
    for events in await asyncio.gather(*following):
        check_log(events, "done")
    assert list(dict.fromkeys(map(task_of, triton.starts))) == ids
    assert len(triton.starts) == len(ids) + len(killed)


async def waiting_at_engine(triton: FakeTriton) -> str:
    """Return the job that waits for the engine, as soon as there is one."""
    async with asyncio.timeout(PATIENCE_S):
        while not triton.at_engine:
            await asyncio.sleep(0.01)
    [request_id] = triton.at_engine
    return task_of(request_id)


async def test_a_stopped_frontend_s_edit_goes_on_at_once(
    frontend: Frontend, triton: FakeTriton
) -> None:
    triton.hold()
    await frontend.start()
    client = Survivor(frontend.url)
    task_id = await client.submit(num_inference_steps=STEPS)
    following = asyncio.create_task(client.follow(task_id))
    async with asyncio.timeout(PATIENCE_S):
        while not triton.starts:
            await asyncio.sleep(0.02)
    await frontend.stop()
    triton.release()
    await frontend.start()
    check_log(await following, "done")
    assert triton.starts == [f"{task_id}.1", f"{task_id}.2"]
    assert triton.cut_streams == []
