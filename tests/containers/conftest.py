"""Owns what the tests of real containers share; every test in this folder is `containers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.web_client import WebClient

from . import engine
from .stack import BUILD_TIMEOUT_S, FOLDER, IMAGES, ROOT, Stack, image, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SIZES_FILE = ROOT / "reports" / "image-sizes.json"
TEST_TIMEOUT_S = 900.0
SIZES = pytest.StashKey[dict[str, int]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder, so that no test forgets to."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.containers)
            # The first one waits for the images: gigabytes, through whatever network there is.
            item.add_marker(pytest.mark.timeout(BUILD_TIMEOUT_S + TEST_TIMEOUT_S))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run without an engine, in one line instead of one for each test."""
    chosen = any(item.get_closest_marker("containers") for item in session.items)
    if chosen and not session.config.option.collectonly and (reason := engine.why_no_engine()):
        raise pytest.UsageError(f"no Docker engine to run containers: {reason}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the sizes of the images."""
    if sizes := config.stash.get(SIZES, None):
        terminalreporter.section("image sizes")
        for name, size in sizes.items():
            terminalreporter.line(f"{size / 1e6:8,.0f} MB  {name}")
        terminalreporter.line(f"in {SIZES_FILE}")


@pytest.fixture(scope="session")
def overrides() -> tuple[Path, ...]:
    """Provide what docker-compose.yml needs on this engine, and build the images that it names."""
    files = [FOLDER / "test.compose.yml"]
    Stack("artmancer-test", tuple(files), port=0).build()
    if not engine.can_lock_memory(image("frontend")):
        files.append(FOLDER / "unlocked.compose.yml")
    return tuple(files)


@pytest.fixture(scope="session")
def image_sizes(overrides: tuple[Path, ...], pytestconfig: pytest.Config) -> dict[str, int]:
    """Bytes of each image that was built; kept for the closing report."""
    sizes = {image(name): engine.image_bytes(image(name)) for name in IMAGES}
    SIZES_FILE.parent.mkdir(exist_ok=True)
    SIZES_FILE.write_text(json.dumps(sizes, indent=1) + "\n")
    pytestconfig.stash[SIZES] = sizes
    return sizes


@pytest.fixture(scope="module")
def stack(overrides: tuple[Path, ...]) -> Iterator[Stack]:
    """Provide a stack that a test leaves running and healthy."""
    with running("artmancer-test", *overrides) as started:
        yield started


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[WebClient]:
    """Provide a web client of the stack, through the port that it publishes."""
    async with WebClient(stack.url) as opened:
        yield opened
