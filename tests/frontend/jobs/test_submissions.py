from __future__ import annotations

from typing import TYPE_CHECKING, cast

from frontend.errors import StoreAwayError
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.submissions import Submissions
from frontend.jobs.transactions import Bounds
from tests.frontend.jobs.samples import created

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.jobs.board import Board


class AwayBoard:
    """Finds that the store is away as soon as the cancel has been answered."""

    async def end_cancelled(self, job_id: str) -> None:
        raise StoreAwayError("The job store does not answer: it is away")


async def test_a_cancel_that_was_kept_is_no_fault_if_the_store_goes_away_then(
    tmp_path: Path,
) -> None:
    store = SqlStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(10**7, 10), 60)
    await created(store)
    status, finish = await Submissions(store, cast("Board", AwayBoard())).cancel("a")
    assert status == "queued"
    await finish()
    assert await store.ask_cancel("a") == "queued"
    await store.close()
