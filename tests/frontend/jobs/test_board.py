"""What is known of Tritons, from what the processes that give them jobs announce."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.domain.tritons import TritonState
from frontend.jobs.board import Board
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.transactions import Bounds

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_triton_that_two_announce_is_one(tmp_path: Path) -> None:
    store = SqlStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(10**7, 10), 60)
    stopping = TritonState(
        url="t:8001", places=2, reason="stopping", taken_by="ended", seconds_per_unit=1.0
    )
    ready = TritonState(url="t:8001", places=2, adapters=("removal",), seconds_per_unit=2.0)
    await store.announce("a", [stopping])
    await store.announce("b", [ready, TritonState(url="u:8001", places=2)])
    async with Board(store, 10, 60) as board:
        assert [state.url for state in board.tritons] == ["t:8001", "u:8001"]
        one = board.tritons[0]
        assert (one.ready, one.taken_by, one.seconds_per_unit) == (True, "ended", 1.5)
        board.require_adapter("removal")
    await store.close()
