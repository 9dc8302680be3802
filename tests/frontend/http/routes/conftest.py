"""Owns the server that the tables of bad requests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from frontend.http.app import create_app
from frontend.settings import Settings
from tests.fakes.triton_server import FakeTriton
from tests.fakes.web_client import WebClient
from tests.frontend.conftest import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hardened(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebClient]:
    """Provide a client of one server that meets the whole table."""
    state = tmp_path_factory.mktemp("state")
    async with FakeTriton() as triton:
        # Decoding may keep the machine from answering pings for a while.
        settings = Settings(
            triton_url=triton.url, log_level="error", state_folder=state, ping_timeout_s=10
        )
        app = create_app(settings)
        async with listening(app) as url, WebClient(url) as client:
            yield client
