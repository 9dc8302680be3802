"""Runs the pages' own commands against the shared server, so that they stay true."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import perf_analyzer
from tests.docs.pages import PAGES, README, ROOT, Block, blocks

if TYPE_CHECKING:
    from pathlib import Path

    from .server import Server

# What a block may need that this test does not have: ```bash needs=docker,gpu
NEEDS = {
    "docker": "a Docker engine",
    "kubernetes": "a Kubernetes cluster",
    "gpu": "an NVIDIA GPU",
    "download": "files from the internet",
    "minutes": "minutes",
}
# What this test fetches, once.
FETCHED = "perf_analyzer"
EXAMPLES = [
    block for page in PAGES for block in blocks(page) if block.language in ("bash", "python")
]
RUN = [block for block in EXAMPLES if not block.needs]


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder with perf_analyzer."""
    try:
        perf_analyzer.install(perf_analyzer.TOOLS)
    except subprocess.CalledProcessError:
        pytest.skip("perf_analyzer is not here and cannot be downloaded")
    return perf_analyzer.TOOLS


def place(block: Block) -> str:
    return block.place


def test_the_pages_have_examples_of_each_kind() -> None:
    of_the_readme = [each.language for each in RUN if each.place.startswith(README.name)]
    assert sorted(of_the_readme) == ["bash", "bash", "python"]
    assert len(RUN) >= 15


@pytest.mark.parametrize(
    "block",
    [
        # It measures, which takes half a minute.
        pytest.param(block, marks=pytest.mark.slow) if FETCHED in block.needs else block
        for block in EXAMPLES
    ],
    ids=place,
)
def test_the_example_runs(request: pytest.FixtureRequest, tmp_path: Path, block: Block) -> None:
    if missing := [need for need in block.needs if need != FETCHED]:
        needs = " and ".join(NEEDS[need] for need in missing)
        pytest.skip(f"{block.place} needs {needs}")
    server: Server = request.getfixturevalue("server")
    text = block.text.replace("http://127.0.0.1:8080", server.url)
    text = text.replace("127.0.0.1:8001", server.triton_url)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    if FETCHED in block.needs:
        (tmp_path / ".tools").symlink_to(request.getfixturevalue("tools"))
    command = (
        ["bash", "-euo", "pipefail", "-c", text]
        if block.language == "bash"
        else [sys.executable, "-W", "error", "-c", text]
    )
    environment = {
        "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "ARTMANCER_URL": server.url,
    }
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    assert '"detail"' not in done.stdout, done.stdout
