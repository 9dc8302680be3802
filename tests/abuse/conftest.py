"""Owns the server that is attacked; every test in this folder is `integration`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.server import PATIENCE, Server, launched

from .good_client import GoodClient

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder, so that no test forgets to."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all attacks."""
    with launched(tmp_path_factory.mktemp("attacked") / "log", PATIENCE) as started:
        yield started


@pytest.fixture
def good(server: Server) -> GoodClient:
    """The well-behaved client; enter it before the attack."""
    server.wait_ready()
    return GoodClient(server)
