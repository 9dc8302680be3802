"""Programs that write into the checkout or fetch something only say what they do if asked."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__main__")
    for folder in ("scripts", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if re.search(r"^if __name__ == .__main__.", path.read_text(), re.MULTILINE)
)


def test_the_modules_are_found() -> None:
    assert {"scripts.restart_strip", "benchmarks", "benchmarks.perf_analyzer"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_is_asked_for_help_does_nothing_else(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().lower().startswith("usage:")


@pytest.mark.parametrize("script", ["setup", "prove-tests"])
def test_a_script_that_is_asked_for_help_does_nothing(script: str) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / script, "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: scripts/{script}")
