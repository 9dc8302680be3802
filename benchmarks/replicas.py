"""Owns measuring two frontends on one store: what clients of one see of what the other one does.

Both serve and both dispatch, each in a process of its own, in front of one Triton. That is the
tests' stand-in, whose steps take as long as it is told. A network on these cores would take them
from the frontends, as no GPU does. Only a stand-in knows when it sent an event, and when a cancel
came.
"""

import asyncio
import contextlib
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from matplotlib.axes import Axes

from benchmarks import client as rest
from benchmarks import subscribers
from benchmarks.client import TERMINAL, Event
from benchmarks.report import p95, summary
from benchmarks.server import ROOT, Server
from frontend.domain.edits import Stage
from frontend.jobs import places
from frontend.jobs.sql_store import SqlStore
from frontend.settings import Settings
from tests.fakes import postgres
from tests.fakes.triton_server import FakeTriton, task_of

SIZE = 256
STEP_S = 0.05
# With hundreds of subscribers: what the demo's network takes.
FOLLOWED_STEP_S = 0.15
# An edit of so many steps lasts until it is cancelled.
ENDLESS = 100
STEPS_BEFORE_CANCEL = 3
# In an outage: a step takes so long, and the store goes away after so many of all.
OUTAGE_STEP_S, OUTAGE_STEPS, STEPS_BEFORE_OUTAGE = 0.25, 40, 8
POLL_S = 0.005
PATIENCE_S = 120.0
NOT_INSTALLED = "not measured: PostgreSQL is not installed"
LABELS = {
    ("first_event_ms", "where_submitted"): "first event, where it was submitted",
    ("first_event_ms", "at_the_other"): "first event, at the other frontend",
    ("event_ms", "where_dispatched"): "event, where the job is dispatched",
    ("event_ms", "at_the_other"): "event, at the other frontend",
    ("cancel_ms",): "cancel at the other frontend, until Triton has it",
}


@dataclass
class Pair:
    """Two frontends on one store, and what stands around them."""

    triton: FakeTriton
    servers: Sequence[Server]
    clients: Sequence[httpx.AsyncClient]
    """Of the servers, in their order."""
    jobs: SqlStore
    """The store itself, which tells who runs a job."""
    outage: Callable[[], contextlib.AbstractAsyncContextManager[None]]
    """The store is away as long as the context lasts."""

    async def holder(self, task_id: str) -> int:
        """Return which server runs a job, once the job has taken a step."""
        await self.stepped(task_id, 1)
        running = (await self.jobs.view()).running
        worker = next(job.worker for job in running if job.job_id == task_id)
        port = int(worker.partition("/")[0].rpartition(":")[2])
        return [server.port for server in self.servers].index(port)

    async def stepped(self, task_id: str, count: int) -> None:
        """Return once a job has taken so many steps in all."""
        async with asyncio.timeout(PATIENCE_S):
            while len(step_times(self.triton.steps, task_id)) < count:
                await asyncio.sleep(POLL_S)


async def measure(
    *, runs: int, followers: int, deaths: int, outages_s: Sequence[float]
) -> dict[str, Any]:
    """Measure two frontends on a file of SQLite, and two on a PostgreSQL if that is installed.

    Args:
        runs: edits that are followed, and as many that are cancelled.
        followers: subscribers of one job; each frontend has half of them.
        deaths: how often a frontend is killed, and how often one that does not come back.
        outages_s: seconds that the store is away.

    Returns:
        Of each store:

        - `submission_ms`: submission sent to answered. `first_event_ms`: to the first event
          received, by a client of the frontend that was asked and by one of the other; both ask
          for the events after the answer.
        - `event_ms`: the model sends a step's response to a client receives its event, at the
          frontend that dispatches the job and at the other one. Triton's way to the dispatcher is
          in both.
        - `cancel_ms`: cancel sent to the frontend that does not dispatch the job until Triton's
          model has it. `cancelled_ms`: until a client there has the event.
        - `subscribers`: as that benchmark has them.
        - `runs_again_s`: the frontend that dispatches a job is killed until a client of the other
          one is told that the job runs again. `started_again` is started at once. `gone` is not,
          so that the other one takes the job when its lease is over.
        - `outages`: what they do to an edit of ten seconds. `attempts` above 1 are repeats.
    """
    found: dict[str, Any] = {"runs": runs, "size": SIZE, "step_ms": 1000 * STEP_S}

    async def all_of(pair: Pair) -> dict[str, Any]:
        return {
            **await _follow(pair, runs),
            **await _cancel(pair, runs),
            "subscribers": await _subscribe(pair, followers),
            "runs_again_s": {
                "started_again": [await _die(pair, comes_back=True) for _ in range(deaths)],
                "gone": [await _die(pair, comes_back=False) for _ in range(deaths)],
            },
            "outages": [await _outlast(pair, outage_s) for outage_s in outages_s],
        }

    async with _on_sqlite() as pair:
        found["SQLite"] = await all_of(pair)
    if not postgres.installed():
        return found | {"PostgreSQL": NOT_INSTALLED}
    async with _on_postgres() as pair:
        found["PostgreSQL"] = await all_of(pair)
    return found


# --- figures ---


def step_times(steps: Sequence[tuple[str, float]], task_id: str) -> list[float]:
    """Return when a job took its steps, in the seconds of FakeTriton's `steps`."""
    return [at for request_id, at in steps if task_of(request_id) == task_id]


def ways(sent: Sequence[float], received: Sequence[Event]) -> list[float]:
    """Return the seconds from the sending of each step to its event.

    Args:
        sent: when each step was sent, the first one first.
        received: all events of the job.
    """
    first: dict[int, float] = {}
    for event in received:
        first.setdefault(event.message["current_step"], event.at)
    return [first[step] - at for step, at in enumerate(sent, 1)]


def milliseconds(seconds: Sequence[float]) -> dict[str, Any]:
    """Return the 95th percentile and the summary of seconds, in milliseconds."""
    samples = [1000 * each for each in seconds]
    return {"p95": p95(samples), "all": summary(samples)}


async def _follow(pair: Pair, runs: int) -> dict[str, Any]:
    first: dict[str, list[float]] = {"where_submitted": [], "at_the_other": []}
    way: dict[str, list[float]] = {"where_dispatched": [], "at_the_other": []}
    answered: list[float] = []
    request = rest.edit_request(SIZE, steps=10)
    for client in pair.clients:  # warm
        await rest.follow(client, await rest.submit(client, request))
    for run in range(runs):
        asked = run % 2
        sent = time.perf_counter()
        task_id = await rest.submit(pair.clients[asked], request)
        answered.append(time.perf_counter() - sent)
        finding = asyncio.create_task(pair.holder(task_id))
        received = await asyncio.gather(*(rest.follow(each, task_id) for each in pair.clients))
        holder = await finding
        first["where_submitted"].append(received[asked][0].at - sent)
        first["at_the_other"].append(received[1 - asked][0].at - sent)
        # On Linux time.monotonic and time.perf_counter are one clock.
        steps = step_times(pair.triton.steps, task_id)
        way["where_dispatched"] += ways(steps, received[holder])
        way["at_the_other"] += ways(steps, received[1 - holder])
    return {
        "submission_ms": milliseconds(answered),
        "first_event_ms": {where: milliseconds(times) for where, times in first.items()},
        "event_ms": {where: milliseconds(times) for where, times in way.items()},
    }


async def _cancel(pair: Pair, runs: int) -> dict[str, Any]:
    asked: list[float] = []
    told: list[float] = []
    for run in range(runs):
        task_id = await rest.submit(pair.clients[run % 2], rest.edit_request(SIZE, ENDLESS))
        other = pair.clients[1 - await pair.holder(task_id)]
        following = asyncio.create_task(_events(other, task_id))
        await pair.stepped(task_id, STEPS_BEFORE_CANCEL)
        await asyncio.sleep(run / runs * STEP_S)  # spreads the cancels over a step
        sent = time.perf_counter()
        await rest.cancel(other, task_id)
        end = (await following)[-1]
        if end.message["status"] != "cancelled":
            raise RuntimeError(f"{task_id} should have been cancelled: {end.message}")
        asked.append(dict(pair.triton.cancels)[task_id] - sent)
        told.append(end.at - sent)
    return {"cancel_ms": milliseconds(asked), "cancelled_ms": milliseconds(told)}


async def _subscribe(pair: Pair, followers: int) -> dict[str, Any]:
    pair.triton.behaviour.step_s = FOLLOWED_STEP_S
    pair.triton.hold()
    task_id = await rest.submit(pair.clients[0], rest.edit_request(SIZE, steps=20))
    async with asyncio.timeout(PATIENCE_S):
        while (await pair.jobs.last(task_id))[1].stage is not Stage.ENCODING:
            await asyncio.sleep(POLL_S)
    connected, ended = asyncio.Barrier(followers + 1), asyncio.Barrier(followers)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                subscribers.subscribe(pair.clients[number % 2], task_id, connected, ended)
            )
            for number in range(followers)
        ]
        await connected.wait()
        pair.triton.release()
    pair.triton.behaviour.step_s = STEP_S
    received = [task.result() for task in tasks]
    live_from = 1 + next(e.number for e in received[0] if e.message["stage"] == Stage.ENCODING)
    spreads = subscribers.receipt_spreads(received, live_from)
    return {
        "subscribers": followers,
        "events": received[0][-1].number,
        "received_by_each": sorted({len(events) for events in received}),
        "ended": sorted({events[-1].message["status"] for events in received}),
        "missed_or_repeated": sum(map(subscribers.out_of_sequence, received)),
        "spread_ms": milliseconds(spreads),
    }


async def _die(pair: Pair, *, comes_back: bool) -> float:
    """Kill the frontend that runs a job; return the seconds until the other one shows it run."""
    pair.triton.behaviour.step_s = 10 * STEP_S
    task_id = await rest.submit(pair.clients[0], rest.edit_request(SIZE, ENDLESS))
    holder = await pair.holder(task_id)
    dying, other = pair.servers[holder], pair.clients[1 - holder]
    running_again = asyncio.create_task(_runs_again(other, task_id))
    await pair.stepped(task_id, STEPS_BEFORE_CANCEL)
    killed_at = time.perf_counter()
    await asyncio.to_thread(dying.kill)
    if comes_back:
        await asyncio.to_thread(dying.start)
    at = await running_again
    await rest.cancel(other, task_id)
    await _events(other, task_id)
    if not comes_back:
        await asyncio.to_thread(dying.start)
    pair.triton.behaviour.step_s = STEP_S
    return round(at - killed_at, 3)


async def _runs_again(client: httpx.AsyncClient, task_id: str) -> float:
    """Return when a client is told that a job runs, which has been begun anew."""
    async with contextlib.aclosing(rest.events(client, task_id)) as events:
        async for event in events:
            if event.message["restarts"] and event.message["status"] == "processing":
                return event.at
    raise RuntimeError(f"{task_id} was not begun anew")


async def _outlast(pair: Pair, outage_s: float) -> dict[str, Any]:
    """Let the store go away in the middle of an edit; return what became of that."""
    pair.triton.behaviour.step_s = OUTAGE_STEP_S
    task_id = await rest.submit(pair.clients[0], rest.edit_request(SIZE, OUTAGE_STEPS))
    await pair.stepped(task_id, STEPS_BEFORE_OUTAGE)
    async with pair.outage():
        await asyncio.sleep(outage_s)
    back_at = time.perf_counter()
    status = ""
    async with asyncio.timeout(PATIENCE_S):
        while status not in TERMINAL:
            await asyncio.sleep(0.1)
            with contextlib.suppress(httpx.HTTPError):
                answer = await pair.clients[1].get(f"/api/generate/status/{task_id}")
                status = answer.raise_for_status().json()["status"]
    ended_at = time.perf_counter()
    log = await _events(pair.clients[1], task_id)
    pair.triton.behaviour.step_s = STEP_S
    return {
        "outage_s": outage_s,
        "attempts": sum(task_of(each) == task_id for each in pair.triton.starts),
        "ended": status,
        "missed_or_repeated": subscribers.out_of_sequence(log),
        "end_after_return_s": round(ended_at - back_at, 1),
    }


async def _events(client: httpx.AsyncClient, task_id: str) -> list[Event]:
    return [event async for event in rest.events(client, task_id)]


# --- what is measured ---


@contextlib.asynccontextmanager
async def _on_sqlite() -> AsyncIterator[Pair]:
    with tempfile.TemporaryDirectory() as state:

        @contextlib.asynccontextmanager
        async def locked() -> AsyncIterator[None]:
            """Hold the lock without which nobody writes, as a broken program would."""
            connection = sqlite3.connect(
                Path(state) / places.FILE, timeout=PATIENCE_S, isolation_level=None
            )
            with contextlib.closing(connection):
                connection.execute("BEGIN IMMEDIATE")
                yield

        async with _pair({"STATE_FOLDER": state, "STORE_URL": ""}, locked) as pair:
            yield pair


@contextlib.asynccontextmanager
async def _on_postgres() -> AsyncIterator[Pair]:
    with postgres.PostgresServer() as database:

        @contextlib.asynccontextmanager
        async def killed() -> AsyncIterator[None]:
            await asyncio.to_thread(database.kill)
            try:
                yield
            finally:
                await asyncio.to_thread(database.start)

        async with _pair({"STORE_URL": database.new_database()}, killed) as pair:
            yield pair


@contextlib.asynccontextmanager
async def _pair(
    store: Mapping[str, str], outage: Callable[[], contextlib.AbstractAsyncContextManager[None]]
) -> AsyncIterator[Pair]:
    """Start two frontends whose settings name one store."""
    async with contextlib.AsyncExitStack() as stack:
        triton = await stack.enter_async_context(FakeTriton())
        triton.behaviour.step_s = STEP_S
        servers = []
        for _ in range(2):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            servers.append(server := Server(folder, ROOT, TRITON_URL=triton.url, **store))
            stack.push_async_callback(asyncio.to_thread, server.stop)
            await asyncio.to_thread(server.start)
        clients = [
            await stack.enter_async_context(rest.connect(server.endpoints.rest))
            for server in servers
        ]
        values: dict[str, Any] = {name.lower(): value for name, value in store.items()}
        jobs = await places.open_store(Settings(**values))
        stack.push_async_callback(jobs.close)
        yield Pair(triton, servers, clients, jobs, outage)


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw the distribution of each time that a client waits."""
    labels, samples = [], []
    for path, label in reversed(LABELS.items()):
        for store in ("PostgreSQL", "SQLite"):
            times = results[store]
            if isinstance(times, dict):
                for key in path:
                    times = times[key]
                labels.append(f"{label}\n{store}: 95 % within {times['p95']:.0f} ms")
                samples.append(times["all"]["samples"])
    axes.boxplot(samples, orientation="horizontal", tick_labels=labels, whis=(0, 100))
    axes.tick_params(axis="y", labelsize="xx-small")
    axes.set(title="Two frontends on one store", xlabel="milliseconds", xlim=(0, None))
