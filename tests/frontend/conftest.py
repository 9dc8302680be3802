"""Owns a running frontend in front of a stand-in for Triton, both on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import structlog

from frontend import serving
from frontend.http.app import create_app
from frontend.settings import Settings
from tests.fakes.clock import Clock
from tests.fakes.triton_server import FakeTriton
from tests.fakes.web_client import WebClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from fastapi import FastAPI


class Serve(Protocol):
    """Start a frontend with changed settings; yields a client of it."""

    def __call__(self, **changes: Any) -> AbstractAsyncContextManager[WebClient]: ...


@contextlib.asynccontextmanager
async def listening(app: FastAPI, settings: Settings | None = None) -> AsyncIterator[str]:
    """Serve `app` on a free port, with the bounds that it is shipped with, and yield its URL."""
    async with started(app, settings) as server:
        yield url_of(server)


def url_of(server: serving._Server) -> str:
    """Return where a server listens."""
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def started(app: FastAPI, settings: Settings | None = None) -> AsyncIterator[serving._Server]:
    """Do as `listening` does, and yield the server, which stops at the end unless it did before."""
    config = serving.server_config(app, settings or Settings())
    config.port = 0
    server = serving._Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not (server.started or task.done()):
            await asyncio.sleep(0.005)
        assert server.started
        yield server
    finally:
        server.should_exit = True
        await task


@pytest.fixture(autouse=True)
def _loud() -> Iterator[None]:
    """Take back the level that an app within a test gives the log of all that follow."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def clock() -> Clock:
    """Provide a clock that the test moves."""
    return Clock()


@pytest.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    """Provide a healthy stand-in for Triton."""
    async with FakeTriton() as fake:
        yield fake


@pytest.fixture
def settings(triton: FakeTriton, tmp_path: Path) -> Settings:
    """Provide settings with times that suit a test."""
    return Settings(
        state_folder=tmp_path / "state",
        triton_url=triton.url,
        log_level="error",
        ping_interval_s=0.05,
        ping_timeout_s=10,
        cancel_timeout_s=10,
        cancel_grace_s=10,
    )


@pytest.fixture
def serve(settings: Settings) -> Serve:
    numbers = itertools.count()

    @contextlib.asynccontextmanager
    async def serving_client(**changes: Any) -> AsyncIterator[WebClient]:
        assert settings.state_folder is not None
        # Each frontend has jobs of its own, unless a test wants it otherwise.
        own = settings.state_folder / str(next(numbers))
        changed = settings.model_copy(update={"state_folder": own} | changes)
        async with listening(create_app(changed), changed) as url, WebClient(url) as client:
            yield client

    return serving_client


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[WebClient]:
    """Provide a client of a frontend with the settings above."""
    async with serve() as started:
        yield started
