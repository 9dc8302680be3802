"""What a command that starts a server makes of signals."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Drops an interrupt within a finalizer, and mostly twice more.
FINALIZER = """
import os, signal, sys, threading, time

from frontend.cli import launching

launching.INSIST_S = 0.05

class Loud:
    def __init__(self, number):
        self.number = number

    def __del__(self):
        if self.number:
            os.kill(os.getpid(), self.number)
        time.sleep(0.2)

launching.stop_on_signals()
try:
    Loud(int(sys.argv[1]))
    Loud(0)
    Loud(0)
    threading.Event().wait(60)
except KeyboardInterrupt:
    print("heard")
    time.sleep(0.2)  # and heard once
    os.kill(os.getpid(), int(sys.argv[1]))
    print("left alone")
"""
OTHER = """
from frontend.cli import launching

class Broken:
    def __del__(self):
        raise ValueError("on purpose")

launching.stop_on_signals()
Broken()
"""


@pytest.mark.parametrize("number", [1, 2, 15])
def test_an_interrupt_within_a_finalizer_is_raised_again(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FINALIZER, str(number)], capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.stdout) == ("", "heard\nleft alone\n")


def test_another_error_within_a_finalizer_is_shown() -> None:
    done = subprocess.run([sys.executable, "-c", OTHER], capture_output=True, text=True, timeout=60)
    assert "ValueError: on purpose" in done.stderr
