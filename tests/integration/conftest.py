"""Owns the servers that integration tests share; every test in this folder is `integration`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.web_client import WebClient

from .server import Server, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parents[2]
# Bytes of features, by the demo's network: 410 KB each and a little for each detection.
FIVE_PICTURES = 2_200_000


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


@pytest.fixture(scope="session")
def _fragile_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server to be harmed.

    Its bundle lacks the white-balance adapter, and it keeps the features of five pictures.
    """
    folder = tmp_path_factory.mktemp("fragile")
    shutil.copytree(ROOT / "model_repository", folder / "model_repository")
    shutil.copytree(ROOT / "bundles", folder / "bundles")
    config = folder / "model_repository" / "smart_mask" / "configs" / "cpu.pbtxt"
    small = config.read_text().replace('"268435456"', f'"{FIVE_PICTURES}"')
    assert str(FIVE_PICTURES) in small
    config.write_text(small)
    path = folder / "bundles" / "demo" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["adapters"]["white-balance"]
    path.write_text(json.dumps(manifest))
    settings = {"MODEL_REPOSITORY": str(folder / "model_repository")}
    with running(folder / "log", **settings) as started:
        yield started


@pytest.fixture
def fragile_server(_fragile_server: Server) -> Server:
    """The server to be harmed, recovered from the harm that an earlier test did."""
    _fragile_server.wait_ready()
    return _fragile_server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[WebClient]:
    """A web client of the shared server."""
    async with WebClient(server.url) as opened:
        yield opened
