"""Owns the servers that integration tests share; every test in this folder is `integration`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .server import Server, running
from .web_client import WebClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder, so that no test forgets to."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for every test that leaves it as it was."""
    with running(tmp_path_factory.mktemp("server") / "log") as started:
        yield started


@pytest.fixture(scope="module")
def fragile_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server to be harmed; its bundle lacks the white-balance adapter."""
    folder = tmp_path_factory.mktemp("fragile")
    shutil.copytree(ROOT / "model_repository", folder / "model_repository")
    shutil.copytree(ROOT / "bundles" / "demo", folder / "bundles" / "demo")
    path = folder / "bundles" / "demo" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["adapters"]["white-balance"]
    path.write_text(json.dumps(manifest))
    settings = {"MODEL_REPOSITORY": str(folder / "model_repository")}
    with running(folder / "log", **settings) as started:
        yield started


@pytest.fixture
async def client(server: Server) -> AsyncIterator[WebClient]:
    """A web client of the shared server."""
    async with WebClient(server.url) as opened:
        yield opened
