"""Owns the stores that the conformance suite runs over."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.transactions import Bounds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from frontend.jobs.store import JobStore


class OpenStore(Protocol):
    """Open another connection to the test's one store, with other bounds if they are given."""

    async def __call__(
        self, max_bytes: int = ..., waiting: int = ..., ttl_s: float = ...
    ) -> JobStore: ...


@pytest.fixture(params=["sqlite"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    async with contextlib.AsyncExitStack() as stack:

        async def opened(max_bytes: int = 10**7, waiting: int = 100, ttl_s: float = 60) -> JobStore:
            store = SqlStore(SqliteDriver(tmp_path / "jobs.db"), Bounds(max_bytes, waiting), ttl_s)
            stack.push_async_callback(store.close)
            return store

        yield opened


@pytest.fixture
async def store(open_store: OpenStore) -> Any:
    return await open_store()
