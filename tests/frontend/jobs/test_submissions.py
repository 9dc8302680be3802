from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from frontend.domain.tritons import TritonState
from frontend.errors import ClosingError, ServingError, StoreAwayError
from frontend.jobs import submissions
from frontend.jobs.board import Board
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.store import Key
from frontend.jobs.submissions import Submissions
from frontend.jobs.transactions import Bounds
from tests.frontend.jobs.samples import ME, TYPES, created, params

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.jobs.store import Created, NewJob


class AwayBoard:
    """Finds that the store is away, or closed, as soon as the cancel has been answered."""

    def __init__(self, error: ServingError) -> None:
        self._error = error

    async def end_cancelled(self, job_id: str) -> None:
        raise self._error


@pytest.mark.parametrize(
    "error", [StoreAwayError("The job store does not answer: it is away"), ClosingError()]
)
async def test_a_cancel_that_was_kept_is_no_fault_if_the_store_goes_away_then(
    tmp_path: Path, error: ServingError
) -> None:
    store = SqlStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(10**7, 10), 60)
    await created(store)
    status, finish = await Submissions(store, cast("Board", AwayBoard(error))).cancel("a")
    assert status == "queued"
    await finish()
    assert await store.ask_cancel("a") == "queued"
    await store.close()


class LateStore(SqlStore):
    """Gives up on a job that comes only when `coming` is set."""

    coming: asyncio.Event
    late: asyncio.Task[Created]

    async def create(self, job: NewJob) -> Created:
        self.late = asyncio.create_task(self._create(job))
        raise StoreAwayError("The job store does not answer: TimeoutError")

    async def _create(self, job: NewJob) -> Created:
        await self.coming.wait()
        return await super().create(job)


@pytest.mark.parametrize("key", [None, Key("k", b"digest")])
async def test_a_job_that_comes_although_its_client_was_refused_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: Key | None
) -> None:
    monkeypatch.setattr(submissions, "LATE_ROUND_S", 0.01)
    store = LateStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(10**7, 10), 60)
    store.coming = asyncio.Event()
    await store.announce("w", [TritonState(url="x:1", places=1, adapters=TYPES)])
    async with Board(store, 10, 60) as board:
        accepting = Submissions(store, board)
        with pytest.raises(StoreAwayError):
            await accepting.submit(ME, params(), b"original", None, key=key)
        await asyncio.sleep(0.05)  # it is asked for before it is there
        store.coming.set()
        job_id = (await store.late).job_id
        if key is None:
            assert (await store.read(job_id, 1, wait_s=30))[-1][1].status == "cancelled"
        else:  # its client sends it again, and is to find it
            assert not accepting._late
            assert (await store.last(job_id))[1].status == "queued"
    await store.close()
