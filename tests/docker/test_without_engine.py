"""What `make test-containers` says where no Docker engine answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFUSING = """#!/bin/sh
echo 'Client: 28.2' && echo 'Cannot connect to the Docker daemon at unix:///nowhere.' >&2
exit 1
"""


def run_pytest(path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"), *arguments],
        cwd=ROOT,
        env={"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (None, "there is no `docker` command"),
        (REFUSING, "Cannot connect to the Docker daemon at unix:///nowhere."),
    ],
)
def test_it_fails_with_one_line(tmp_path: Path, command: str | None, reason: str) -> None:
    if command is not None:
        (tmp_path / "docker").write_text(command)
        (tmp_path / "docker").chmod(0o755)
    done = run_pytest(str(tmp_path), "-m", "containers", "tests/containers")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    said = [line for line in done.stdout.splitlines() if line.strip()]
    assert f"ERROR: no Docker engine to run containers: {reason}" in said
    assert len(said) <= 2, said


def test_no_other_run_of_the_tests_needs_an_engine() -> None:
    done = run_pytest("/nowhere", "tests/containers")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout
