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


TASK = """
import sys
from concurrent.futures import ThreadPoolExecutor
from model_kit.crash_only import unfailing

def run(number):
    print(number)
    {run}

task = unfailing("a request", run, lambda line: print(line, file=sys.stderr))
with ThreadPoolExecutor(1) as pool:
    for number in range(2):
        pool.submit(task, number)
"""


@pytest.mark.parametrize(
    ("run", "code", "said"),
    [
        ("raise KeyError('owed')", 1, "a request ended unasked"),
        ("sys.exit(0)", 1, "SystemExit"),
        ("pass", 0, ""),
    ],
)
def test_a_task_of_a_pool_may_not_fail_unseen(run: str, code: int, said: str) -> None:
    command = [sys.executable, "-c", TASK.format(run=run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == code
    assert said in done.stderr
