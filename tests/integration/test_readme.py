"""Runs the README's own commands against the shared server, so that they stay true."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from frontend.settings import Settings

if TYPE_CHECKING:
    from .server import Server

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Blocks that talk to the two default addresses run here; set-up commands are run by make.
EXAMPLES = [(language, text) for language, text in BLOCK.findall(README) if "127.0.0.1:80" in text]


def test_the_readme_has_examples_of_each_kind() -> None:
    assert sum(language == "bash" for language, _ in EXAMPLES) >= 3
    assert sum(language == "python" for language, _ in EXAMPLES) >= 2


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_readme_example_runs(server: Server, tmp_path: Path, number: int) -> None:
    language, text = EXAMPLES[number]
    text = text.replace("http://127.0.0.1:8080", server.url)
    text = text.replace("127.0.0.1:8001", server.triton_url)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    command = (
        ["bash", "-euo", "pipefail", "-c", text]
        if language == "bash"
        else [sys.executable, "-W", "error", "-c", text]
    )
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    assert '"detail"' not in done.stdout, done.stdout


def test_the_readme_lists_every_setting() -> None:
    listed = set(re.findall(r"^\| `ARTMANCER_([A-Z_]+)` \|", README, re.MULTILINE))
    assert listed == {name.upper() for name in Settings.model_fields}
