from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from frontend.dispatch import job_log, patience
from frontend.dispatch.job_log import ClaimLostError, JobLog
from frontend.dispatch.patience import Patience
from frontend.errors import BackendError, StoreAwayError
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.statements import rows
from frontend.jobs.transactions import Bounds
from tests.frontend.eventually import eventually
from tests.frontend.jobs.samples import (
    RESULT,
    claimed,
    created,
    event,
    reaped,
    result,
    seqs,
    statuses,
    step,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqlStore]:
    monkeypatch.setattr(patience, "RETRY_S", 0.01)
    opened = SqlStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(10**7, 10), 60)
    yield opened
    await opened.close()


@pytest.fixture
async def log(store: SqlStore) -> JobLog:
    await created(store)
    return JobLog(store, await claimed(store), Patience())


async def test_writers_take_numbers_in_turn(store: SqlStore, log: JobLog) -> None:
    await asyncio.gather(*(log.append(step(number)) for number in range(10)))
    assert await log.end(event("done"), RESULT)
    assert not await log.end(event("error"))
    await log.append(step(3))
    entries = await store.read("a")
    assert seqs(entries) == list(range(1, 13))
    assert entries[-1][1].progress == 1


async def test_an_end_after_a_cancel_at_another_frontend_is_the_cancel_s(
    store: SqlStore, log: JobLog
) -> None:
    await log.append(step(1))
    await store.ask_cancel("a")
    assert not await log.end(event("done"), RESULT)
    assert not await log.end(event("error"))
    assert await statuses(store, "a") == ["queued", "processing", "cancelled"]
    assert await result(store, "a") is None


async def test_who_has_lost_the_job_is_told(store: SqlStore, log: JobLog) -> None:
    await store.renew([log.claim], -1)
    await reaped(store)
    with pytest.raises(ClaimLostError):
        await log.append(step(1))
    with pytest.raises(ClaimLostError):
        await log.end(event("error"))
    assert await statuses(store, "a") == ["queued"]


async def test_a_job_that_a_failover_has_lost_is_nobody_s(store: SqlStore, log: JobLog) -> None:
    await store.driver.write(rows("delete_job", "a"))
    with pytest.raises(ClaimLostError):
        await log.append(step(1))
    with pytest.raises(ClaimLostError):
        await log.end(event("error"))


@pytest.mark.parametrize("arrives", [False, True])
async def test_a_write_whose_answer_is_lost_is_repeated(
    store: SqlStore, log: JobLog, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    for name in ("append", "end"):
        fault = Fault(getattr(store, name), arrives)
        monkeypatch.setattr(store, name, fault)
    await log.append(step(1))
    await log.append(step(2))
    assert await log.end(event("done"), RESULT)
    assert await statuses(store, "a") == ["queued", "processing", "processing", "done"]
    assert await result(store, "a") == RESULT


class Fault:
    """A call of a store that is lost the first two times, on its way there or back."""

    def __init__(self, call: Any, arrives: bool) -> None:
        self._call = call
        self._arrives = arrives
        self._left = 2

    async def __call__(self, *args: Any) -> bool:
        if self._left:
            self._left -= 1
            if self._arrives:
                await self._call(*args)
            raise StoreAwayError("The job store does not answer")
        answer: bool = await self._call(*args)
        return answer


async def test_events_wait_in_order_for_a_store_that_is_away(
    store: SqlStore, log: JobLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault(store.append, arrives=False)
    fault._left = 20
    monkeypatch.setattr(store, "append", fault)
    writing = asyncio.gather(*(log.append(step(number)) for number in (1, 2, 3)))
    await eventually(lambda: fault._left < 10)
    assert log.writing
    await writing
    assert not log.writing
    assert [event.current_step for _, event in await store.read("a", 1)] == [1, 2, 3]


async def test_nobody_waits_for_the_store_in_a_process_that_stops(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await created(store)
    held = Patience()
    log = JobLog(store, await claimed(store), held)
    fault = Fault(store.append, arrives=False)
    fault._left = 10**6
    monkeypatch.setattr(store, "append", fault)
    writing = asyncio.create_task(log.append(step(1)))
    await eventually(lambda: fault._left < 10**6 - 5)
    held.end()
    with pytest.raises(StoreAwayError):
        await writing
    fault._left = 1
    with pytest.raises(StoreAwayError):
        await log.append(step(1))
    await log.append(step(1))  # it is asked once


async def test_a_model_that_never_stops_talking_fails(
    log: JobLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_log, "MAX_EVENTS", most := 20)  # a slow disk takes minutes for all
    for _ in range(most - 1):
        await log.append(step(1))
    with pytest.raises(BackendError):
        await log.append(step(1))
    assert await log.end(event("error"))
