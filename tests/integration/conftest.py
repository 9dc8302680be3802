"""Owns the servers that integration tests share; every test in this folder is `integration`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import tritonclient.grpc.aio as grpc_aio

from tests.fakes.web_client import WebClient

from .server import ROOT, Server, copied_repository, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# Bytes of features, by the demo's network: 410 KB each and a little for each detection.
FIVE_PICTURES = 2_200_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder, so that no test forgets to."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


def _copied(folder: Path, model: str, **parameters: str) -> Path:
    """Return a copied model repository, one model of it with other parameters."""
    repository = copied_repository(folder)
    config = repository / model / "configs" / "cpu.pbtxt"
    text = config.read_text()
    for key, value in parameters.items():
        before = rf'key: "{key}" value {{ string_value: '
        text, found = re.subn(rf'({before})"[^"]*"', rf'\g<1>"{value}"', text)
        assert found == 1, key
    config.write_text(text)
    return repository


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for every test that leaves it as it was.

    It works on larger pictures at 256x256 pixels, because a step at 512x512 takes six times as
    long and most tests ask how a picture is treated, not how good it becomes.
    """
    folder = tmp_path_factory.mktemp("server")
    repository = _copied(folder, "image_edit", IMAGE_AREA=str(256 * 256))
    with running(folder / "log", MODEL_REPOSITORY=str(repository)) as started:
        yield started


@pytest.fixture(scope="session")
def unchanged_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the model repository and the bundles as they are."""
    with running(tmp_path_factory.mktemp("unchanged") / "log") as started:
        yield started


@pytest.fixture(scope="session")
def _fragile_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server to be harmed.

    Its bundle lacks the white-balance adapter, and it keeps the features of five pictures.
    """
    folder = tmp_path_factory.mktemp("fragile")
    repository = _copied(folder, "smart_mask", CACHE_BYTES=str(FIVE_PICTURES))
    bundle = folder / "bundles" / "demo"
    bundle.unlink()
    shutil.copytree(ROOT / "bundles" / "demo", bundle)
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["adapters"]["white-balance"]
    path.write_text(json.dumps(manifest))
    with running(folder / "log", MODEL_REPOSITORY=str(repository)) as started:
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


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client of the shared server."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as opened:
        yield opened


@pytest.fixture
async def triton(server: Server) -> AsyncIterator[grpc_aio.InferenceServerClient]:
    """A direct client of the shared server's Triton."""
    async with grpc_aio.InferenceServerClient(server.triton_url) as opened:
        yield opened
