"""What a program that runs a server makes of signals."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Drops an interrupt within a finalizer, and mostly twice more.
FINALIZER = """
import os, signal, sys, threading, time

from frontend import signals

signals.INSIST_S = 0.05

class Loud:
    def __init__(self, number):
        self.number = number

    def __del__(self):
        if self.number:
            os.kill(os.getpid(), self.number)
        time.sleep(0.2)

signals.stop_on_signals()
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
# Some signals are ignored from the start, as under nohup or in a script's background.
IGNORED = """
import os, signal, sys

from frontend import signals

number, others = int(sys.argv[1]), signals.ENDING
signal.signal(number, signal.SIG_IGN)
signals.stop_on_signals()
try:
    os.kill(os.getpid(), number)
    print("goes on")
    os.kill(os.getpid(), next(other for other in others if other != number))
    signal.pause()
except KeyboardInterrupt:
    print("heard")
"""
# A stop begins while an interrupt that Python has dropped waits to be raised again.
STOPPING = """
import os, signal, sys

from frontend import signals

class Loud:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        for _ in range(1000):  # the handler runs here
            pass

signals.INSIST_S = 3600
signals.stop_on_signals()
Loud()
assert signal.getitimer(signal.ITIMER_REAL)[0]
signals.hear_no_more()
assert not signal.getitimer(signal.ITIMER_REAL)[0]
for number in signals.ENDING:
    os.kill(os.getpid(), number)
print("left alone")
"""
OTHER = """
from frontend import signals

class Broken:
    def __del__(self):
        raise ValueError("on purpose")

signals.stop_on_signals()
Broken()
"""


@pytest.mark.parametrize("number", [1, 2, 15])
def test_an_interrupt_within_a_finalizer_is_raised_again(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FINALIZER, str(number)], capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.stdout) == ("", "heard\nleft alone\n")


@pytest.mark.parametrize("number", [1, 2, 15])
def test_what_the_process_ignores_stays_ignored(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IGNORED, str(number)], capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.stdout) == ("", "goes on\nheard\n")


@pytest.mark.parametrize("number", [1, 2, 15])
def test_a_stop_that_has_begun_hears_nothing(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPING, str(number)], capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.stdout) == ("", "left alone\n")


def test_another_error_within_a_finalizer_is_shown() -> None:
    done = subprocess.run([sys.executable, "-c", OTHER], capture_output=True, text=True, timeout=60)
    assert "ValueError: on purpose" in done.stderr
