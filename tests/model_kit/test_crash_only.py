"""Threads that must not end unseen, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys, threading, time
from model_kit.crash_only import EXIT_CODE, guarded

def run():
    {run}

threading.Thread(
    target=guarded("watcher", run, lambda: {asked}, lambda line: print(line, file=sys.stderr)),
    daemon=True,
).start()
time.sleep({lasts})
"""


def outcome(run: str, asked: bool, lasts: float) -> tuple[int, str]:
    script = SCRIPT.format(run=run, asked=asked, lasts=lasts)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ("raise OSError(24, 'Too many open files')", "Too many open files"),
        ("sys.exit(0)", "SystemExit"),
        ("pass", "it returned"),
    ],
)
def test_a_process_does_not_outlive_its_watcher(run: str, reason: str) -> None:
    code, log = outcome(run, asked=False, lasts=60)
    assert code == 1
    assert "watcher ended unasked" in log
    assert reason in log


def test_a_watcher_that_was_to_end_takes_nothing_with_it() -> None:
    assert outcome("pass", asked=True, lasts=0.2) == (0, "")
