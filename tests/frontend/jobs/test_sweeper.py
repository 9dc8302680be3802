"""Who judges leases must have written to the store for a whole lease without a gap."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from frontend.domain.tritons import TritonState
from frontend.errors import StoreAwayError
from frontend.jobs import sqlite
from frontend.jobs.sql_store import LOST_TEXT, SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.sweeper import GAP, Sweeper
from frontend.jobs.transactions import Bounds
from tests.frontend.jobs.samples import claimed, created

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.jobs.store import Claim
    from tests.fakes.clock import Clock


@pytest.fixture
async def claim(store: SqlStore) -> Claim:
    """Hold a job whose lease is over."""
    await created(store)
    return await claimed(store, lease_s=-1)


@pytest.fixture
async def sweeper(
    store: SqlStore, clock: Clock, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> Sweeper:
    """Of a store with that job, which goes by the test's clock."""

    clock.now = time.time()

    async def beat(_late_s: float) -> float:
        return clock()

    monkeypatch.setattr(store, "beat", beat)
    return Sweeper(store, lease_s=10)


async def swept(sweeper: Sweeper, clock: Clock, seconds: float) -> None:
    """Sweep each second for so many of them."""
    until = clock.now + seconds
    while clock.now < until:
        clock.now += 1
        await sweeper.sweep()


async def loses_its_job_after_a_lease(
    store: SqlStore, claim: Claim, sweeper: Sweeper, clock: Clock
) -> None:
    """Assert that a claim, renewed for 10 s, holds for so long and no longer."""
    assert await store.renew([claim], 10)
    await swept(sweeper, clock, 9)
    assert not await waits(store)
    await swept(sweeper, clock, 2)  # it gave no sign of life since
    assert await waits(store)


async def waits(store: SqlStore) -> bool:
    return bool((await store.view()).waiting)


async def test_nobody_is_judged_in_the_first_lease(
    store: SqlStore, sweeper: Sweeper, clock: Clock
) -> None:
    await swept(sweeper, clock, 10)
    assert not await waits(store)
    await swept(sweeper, clock, 1)
    assert await waits(store)


@pytest.mark.parametrize("jump", [10 * GAP, 3600, -3600])
async def test_who_stood_still_or_whose_clock_was_set_begins_anew(
    store: SqlStore, sweeper: Sweeper, clock: Clock, jump: float
) -> None:
    await swept(sweeper, clock, 9)
    clock.now += jump
    await swept(sweeper, clock, 10)
    assert not await waits(store)
    await swept(sweeper, clock, 1)
    assert await waits(store)


async def test_a_machine_that_slept_takes_no_job_from_its_own_dispatcher(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "time", SimpleNamespace(**vars(time) | {"time": clock}))
    store = SqlStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(10**7, 10), ttl_s=10**6)
    await created(store)
    claim, sweeper = await claimed(store, lease_s=10), Sweeper(store, lease_s=10)
    for _ in range(20):
        clock.now += 1
        await store.renew([claim], 10)
        await sweeper.sweep()
    clock.now += 3600  # the sweeper wakes before the dispatcher
    await sweeper.sweep()
    await loses_its_job_after_a_lease(store, claim, sweeper, clock)
    await store.close()


async def test_a_clock_that_is_set_back_makes_nobody_live_longer(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "time", SimpleNamespace(**vars(time) | {"time": clock}))
    clock.now = 10**6
    store = SqlStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(10**7, 10), ttl_s=10**6)
    for job_id in ("its dead worker's", "its live worker's", "cancelled"):
        await created(store, job_id)
    await claimed(store, "dead", lease_s=10)
    live = await claimed(store, "live", lease_s=10)
    for worker in ("dead", "live"):
        await store.announce(worker, [TritonState(url="t", places=1)])
    await store.ask_cancel("cancelled")
    clock.now -= 3600
    sweeper = Sweeper(store, lease_s=10)
    for _ in range(12):
        await store.announce("live", [TritonState(url="t", places=1)])
        await store.renew([live], 10)
        await swept(sweeper, clock, 1)
    view = await store.view()
    assert [each.worker for each in view.tritons] == ["live"]
    assert [each.job_id for each in view.running] == ["its live worker's"]
    assert [each.job_id for each in view.waiting] == ["its dead worker's"]
    assert (await store.last("cancelled"))[1].status == "cancelled"
    await store.close()


@pytest.mark.parametrize("call", ["sweep", "beat"])
async def test_an_outage_of_the_store_begins_anew(
    store: SqlStore, sweeper: Sweeper, clock: Clock, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    await swept(sweeper, clock, 9)

    async def away(*_: object) -> None:
        raise StoreAwayError("The job store does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(store, call, away)
        await swept(sweeper, clock, 1)
    await swept(sweeper, clock, 10)
    assert not await waits(store)
    await swept(sweeper, clock, 1)
    assert await waits(store)


@pytest.mark.parametrize("first", ["its dispatcher", "a sweeper"])
async def test_a_file_that_was_only_read_for_long_takes_no_job_from_its_dispatcher(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setattr(sqlite, "time", SimpleNamespace(**vars(time) | {"time": clock}))
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.01)
    store = SqlStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(10**7, 10), ttl_s=10**6)
    await created(store)
    claim, sweeper = await claimed(store, lease_s=10), Sweeper(store, lease_s=10)
    for _ in range(20):
        await store.renew([claim], 10)
        await swept(sweeper, clock, 1)
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await swept(sweeper, clock, 30)
        with pytest.raises(StoreAwayError):
            await store.renew([claim], 10)
    if first == "a sweeper":
        await swept(sweeper, clock, 10)
        assert not await waits(store)
    await loses_its_job_after_a_lease(store, claim, sweeper, clock)
    await store.close()


async def test_who_shows_signs_of_life_keeps_its_job(
    store: SqlStore, sweeper: Sweeper, clock: Clock, claim: Claim
) -> None:
    await store.renew([claim], 60)
    await swept(sweeper, clock, 30)
    assert not await waits(store)


async def test_a_job_that_ends_because_it_was_lost_is_logged(
    store: SqlStore, sweeper: Sweeper, clock: Clock
) -> None:
    for lost in (False, True):
        with capture_logs() as entries:
            await swept(sweeper, clock, 12)
        assert [entry["event"] for entry in entries] == ["job_reaped"] + ["job_ended"] * lost
        if not lost:
            await claimed(store, lease_s=-1)
    ended = entries[-1]
    assert (ended["task_id"], ended["task_type"], ended["log_level"]) == ("a", "removal", "error")
    assert ended["error"] == LOST_TEXT
