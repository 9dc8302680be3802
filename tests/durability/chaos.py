"""Owns the chaos: a workload on two frontends, what befalls them meanwhile, and what must hold.

Everything random is drawn from one seed; only the machine's own timing differs between two runs.
The names of the invariants:

I1  A job that was acknowledged ends, and every frontend has it.
I2  A job has one final event, the last one, and everybody gets the same.
I3  Entries are numbered 1, 2, ... and one number has one content, for everybody and for ever.
I4  Steps, progress and restarts never fall; a job is restarted at most once.
I5  Triton gets a job at most twice, and twice only after a fault that is no outage of the database.
    A full disk is one.
I7  One Idempotency-Key is one job. After the 200 to a cancel a job is cancelled, unless it had
    ended before.
I8  The store's sums are those of its rows, and nothing is left once all has expired.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from frontend.jobs import sweeping
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.statements import rows
from frontend.jobs.transactions import Bounds
from tests.durability.frontends import Survivor
from tests.durability.logs import check_log
from tests.fakes.triton_server import task_of
from tests.fakes.web_client import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    import pytest

    from frontend.jobs.driver import Driver
    from tests.durability.frontends import Frontend
    from tests.fakes.link import Link
    from tests.fakes.postgres import PostgresServer
    from tests.fakes.small_disk import SmallDisk
    from tests.fakes.triton_server import FakeTriton
    from tests.fakes.web_client import Json

CLIENTS = 20
STEPS = (5, 20)
LEASE_S = 3.0
LONGEST_PAUSE_S = 5.0
CALM_S = 3.0
HEALED_S = 60.0
FOR_EVER_S = 3600.0
"""A job may wait for as long as faults come; only afterwards its time counts."""


@dataclass
class Job:
    """What is known of one submission."""

    key: str
    steps: int
    cancelled: bool = False
    task_ids: set[str] = field(default_factory=set)
    """Of all answers to it."""
    cancel_answer: str = ""
    """The state that the answer to its cancel told."""
    logs: list[list[Json]] = field(default_factory=list)
    """What each subscriber was told."""

    @property
    def task_id(self) -> str:
        [task_id] = self.task_ids  # I7
        return task_id


class Chaos:
    """Runs a workload and faults, and checks what came of it.

    Args:
        frontends: started; each has a Triton of its own.
        tritons: of the frontends, in their order.
        links: of the frontends to their Tritons and to their database.
        seed: of all that is random.
        postgres: the frontends' database, if it is one.
        disk: of the frontends' file of SQLite, if it can be filled.
    """

    def __init__(
        self,
        frontends: Sequence[Frontend],
        tritons: Sequence[FakeTriton],
        links: Sequence[Link],
        seed: int,
        postgres: PostgresServer | None,
        disk: SmallDisk | None,
    ) -> None:
        self._frontends = frontends
        self._tritons = tritons
        self._links = links
        self._rng = random.Random(seed)
        self._postgres = postgres
        self._disk = disk
        self._urls = [frontend.url for frontend in frontends]
        self.jobs: list[Job] = []
        self.faults: Counter[str] = Counter()

    async def run(self, count: int, cancels: int, faults: int) -> None:
        """Submit jobs while faults come; return once all have ended.

        Args:
            count: of the jobs.
            cancels: how many of them are cancelled at some time.
            faults: at most so many, while jobs run.
        """
        cancelled = [number < cancels for number in range(count)]
        self._rng.shuffle(cancelled)
        left = iter([Job(str(uuid.uuid4()), self._rng.randint(*STEPS), each) for each in cancelled])
        clients = [asyncio.create_task(self._client(left, self._draw())) for _ in range(CLIENTS)]
        working = asyncio.gather(*clients)
        nemesis = asyncio.create_task(self._nemesis(faults, working))
        try:
            await nemesis
            while not working.done():  # I1: as slow as the machine is, the jobs go on to their ends
                ended = self._ended
                await asyncio.wait([working], timeout=HEALED_S)
                assert working.done() or self._ended > ended, self._left()
            await working
        finally:
            for task in (nemesis, working):
                task.cancel()
            await asyncio.gather(nemesis, working, return_exceptions=True)

    @property
    def _ended(self) -> int:
        return sum(bool(job.logs) for job in self.jobs)

    def _left(self) -> list[Job]:
        return [job for job in self.jobs if not job.logs]

    # --- the workload ---

    async def _client(self, left: Iterator[Job], rng: random.Random) -> None:
        for job in left:
            self.jobs.append(job)
            await self._one_job(job, rng)

    async def _one_job(self, job: Job, rng: random.Random) -> None:
        here = Survivor(*self._urls, rng=rng)
        request = {"num_inference_steps": job.steps, "seed": 7}
        times = 1 + (rng.random() < 0.1)  # sometimes at two frontends at once, or again
        submitting = (here.submit(job.key, **request) for _ in range(times))
        job.task_ids |= set(await asyncio.gather(*submitting))
        if rng.random() < 0.1:
            job.task_ids.add(await here.submit(job.key, **request))
        followers = [Survivor(*self._urls, rng=rng, drops=0.2) for _ in range(rng.randint(1, 3))]
        following = asyncio.gather(*(each.follow(job.task_id, FOR_EVER_S) for each in followers))
        try:
            if job.cancelled:
                await asyncio.sleep(rng.random() * rng.choice((0.05, 0.5, 2)))
                job.cancel_answer = await here.cancel(job.task_id)
            job.logs = list(await following)
        finally:
            following.cancel()
        if job.logs[0][-1]["status"] == "done":
            assert (await here.result(job.task_id))["parameters_used"] == {"seed": 7}

    # --- the faults ---

    async def _nemesis(self, count: int, working: asyncio.Future[Any]) -> None:
        rng = self._draw()
        kinds: list[Callable[[random.Random], Awaitable[None]]]
        kinds = [self._kill, self._pause, self._cut_link, self._hold_link]
        if self._postgres is not None:
            kinds.append(self._kill_postgres)
        if self._disk is not None:
            kinds.append(self._fill_disk)
        for kind in itertools.cycle(kinds):
            if working.done() or self.faults.total() >= count:
                return
            # Between two jobs or within one, as it comes.
            await asyncio.wait([working], timeout=rng.uniform(0, CALM_S))
            self.faults[kind.__name__] += 1
            await kind(rng)

    async def _kill(self, rng: random.Random) -> None:
        dying = rng.choice(self._frontends)
        await dying.kill()
        await dying.start()

    async def _pause(self, rng: random.Random) -> None:
        standing = rng.choice(self._frontends)
        await _for_a_while(rng, standing.pause, standing.go_on)

    async def _cut_link(self, rng: random.Random) -> None:
        link = rng.choice(self._links)
        await _for_a_while(rng, link.cut, link.heal)

    async def _hold_link(self, rng: random.Random) -> None:
        link = rng.choice(self._links)
        await _for_a_while(rng, link.stand_still, link.heal)

    async def _kill_postgres(self, _rng: random.Random) -> None:
        assert self._postgres is not None
        await asyncio.to_thread(self._postgres.kill)
        await asyncio.to_thread(self._postgres.start)

    async def _fill_disk(self, rng: random.Random) -> None:
        assert self._disk is not None
        with self._disk.full():
            for url in self._urls:
                await Survivor(url).refused()
            await asyncio.sleep(rng.uniform(0.5, LONGEST_PAUSE_S))

    def _draw(self) -> random.Random:
        return random.Random(self._rng.random())

    # --- what must hold ---

    async def check(self) -> None:
        """Assert the invariants that clients and Tritons see."""
        left = iter(self.jobs)
        await asyncio.gather(*(self._come_late(left) for _ in range(CLIENTS)))
        ends: Counter[str] = Counter()
        for job in self.jobs:
            assert all(log == job.logs[0] for log in job.logs), job
            end = job.logs[0][-1]
            check_log(job.logs[0], end["status"])  # I2, I4
            ends[end["status"]] += 1
            if end["status"] == "error":
                # Its second loss was its process, or the link to its Triton.
                assert end["error"].startswith(("500: ", "503: Triton is not available")), end
                assert len(self._starts(job)) <= 2
            if job.cancel_answer:  # I7
                ended = job.cancel_answer in TERMINAL
                assert end["status"] == (job.cancel_answer if ended else "cancelled"), job
        assert len({job.task_id for job in self.jobs}) == len(self.jobs)
        print(f"{dict(ends)} after {dict(self.faults)}")  # noqa: T201 (shown if it fails)
        kept = sum(not job.cancelled for job in self.jobs)
        assert ends["done"] > kept / 2
        assert ends["error"] <= self.faults.total()
        self._check_tritons()

    async def _come_late(self, left: Iterator[Job]) -> None:
        """Follow jobs that have ended, at every frontend: I1, I2, I3."""
        for job in left:
            for url in self._urls:
                job.logs.append(await Survivor(url).follow(job.task_id))

    def _starts(self, job: Job) -> list[str]:
        starts = itertools.chain(*(triton.starts for triton in self._tritons))
        return [each for each in starts if task_of(each) == job.task_id]

    def _check_tritons(self) -> None:
        """Assert I5."""
        known = {job.task_id: job for job in self.jobs}
        starts = Counter(itertools.chain(*(triton.starts for triton in self._tritons)))
        assert set(starts.values()) == {1}, "each attempt once"
        of_jobs = Counter(task_of(each) for each in starts)
        assert set(of_jobs) <= set(known)
        assert max(of_jobs.values()) <= 2
        # A fault takes what one process ran; an outage of the database takes nothing.
        outages = self.faults["_kill_postgres"] + self.faults["_fill_disk"]
        hit = self.faults.total() - outages
        assert starts.total() - len(of_jobs) <= hit
        steps = list(itertools.chain(*(triton.steps for triton in self._tritons)))
        needed = sum(known[task_id].steps for task_id in of_jobs)
        assert len(steps) <= needed + hit * STEPS[1]
        for task_id, count in of_jobs.items():
            if count == 2:
                times: dict[str, list[float]] = {}
                for request_id, at in steps:
                    if task_of(request_id) == task_id:
                        times.setdefault(request_id, []).append(at)
                if len(times) == 2:
                    first, second = times.values()
                    overlap = min(max(first), max(second)) - max(min(first), min(second))
                    # A process that stands still, or is cut from its database, does not stop what
                    # its Triton does.
                    assert overlap <= LONGEST_PAUSE_S - LEASE_S + 2, task_id


async def _for_a_while(
    rng: random.Random, begin: Callable[[], None], end: Callable[[], None]
) -> None:
    begin()
    try:
        # Sometimes for longer than a lease: somebody else then has the jobs.
        await asyncio.sleep(rng.uniform(0.5, LONGEST_PAUSE_S))
    finally:
        end()


async def check_store(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert I8, once no frontend runs; all jobs are forgotten, and the driver is closed.

    Args:
        driver: of the frontends' database.
        monkeypatch: a test's.
    """
    await _check_sums(driver)
    monkeypatch.setattr(sweeping, "ORPHAN_S", -1)
    monkeypatch.setattr(sweeping, "ROUND_S", 60.0)
    store = SqlStore(driver, Bounds(10**9, 10), ttl_s=-1)
    await store.sweep()
    await _check_sums(driver)
    for table in ("jobs", "events", "blobs", "finished_of"):
        assert await _number(driver, f"SELECT count(*) AS n FROM {table}") == 0, table
    await store.close()


async def _check_sums(driver: Driver) -> None:
    assert await _number(driver, "SELECT count(*) AS n FROM jobs WHERE ended_at IS NULL") == 0
    kept = await _number(driver, "SELECT coalesce(sum(bytes), 0) AS n FROM jobs")
    for sums in ("finished", "finished_of"):
        assert await _number(driver, f"SELECT coalesce(sum(bytes), 0) AS n FROM {sums}") == kept
    # A job's bytes are those of its blobs, its previews and its entries. What a killed process had
    # put for an attempt that had been lost already does not count, and goes with the job.
    wrong = """
SELECT count(*) AS n FROM jobs j WHERE j.bytes <>
  (SELECT coalesce(sum(length(b.data)), 0) FROM blobs b WHERE b.task_id = j.task_id
    AND (b.name = 'original' OR b.name LIKE j.attempt || '/%'))
  + (SELECT coalesce(sum(length(e.preview)), 0) + 1024 * count(*) FROM events e
     WHERE e.task_id = j.task_id)
"""
    assert await _number(driver, wrong) == 0


async def _number(driver: Any, sql: str) -> int:
    driver._texts["number"] = sql
    [found] = await driver.read(rows("number"))
    return int(found["n"])
