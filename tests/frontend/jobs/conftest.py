"""Owns the databases that the tests of stores run over, and the stores on them."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from frontend.jobs import postgres, sqlite
from frontend.jobs.postgres import PostgresDriver
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.transactions import Bounds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from frontend.jobs.driver import Driver

    Connect = Callable[[], Awaitable[Driver]]


class OpenStore(Protocol):
    """Open another connection to the test's one store, with other bounds if they are given."""

    async def __call__(
        self, max_bytes: int = ..., waiting: int = ..., ttl_s: float = ...
    ) -> SqlStore: ...


@pytest.fixture(autouse=True)
def _patience() -> Iterator[None]:
    """Let a slow disk answer late; a test of a time-out sets its own."""
    with pytest.MonkeyPatch.context() as patch:  # which no test undoes
        patch.setattr(postgres, "TIMEOUT_S", 60.0)
        patch.setattr(sqlite, "BUSY_TIMEOUT_S", 60.0)
        yield


@pytest.fixture(params=["sqlite", "postgres"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Connect]:
    """Make an empty database, and return how to connect to it."""
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")

        def new() -> Connect:
            url = server.new_database()
            return lambda: PostgresDriver.open(url)

        return new
    numbers = itertools.count()

    def new_file() -> Connect:
        file = tmp_path / f"jobs{next(numbers)}.db"

        async def connect() -> Driver:
            return SqliteDriver(file)

        return connect

    return new_file


@pytest.fixture
async def open_store(new_database: Callable[[], Connect]) -> AsyncIterator[OpenStore]:
    connect = new_database()
    async with contextlib.AsyncExitStack() as stack:

        async def opened(max_bytes: int = 10**7, waiting: int = 100, ttl_s: float = 60) -> SqlStore:
            store = SqlStore(await connect(), Bounds(max_bytes, waiting), ttl_s)
            stack.push_async_callback(store.close)
            return store

        yield opened


@pytest.fixture
async def store(open_store: OpenStore) -> Any:
    return await open_store()
