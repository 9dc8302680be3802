"""Owns which signals end a program, and how they end one that runs a server.

It imports little, because the command line loads it before anything else.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INSIST_S = 0.5
"""An interrupt that Python has dropped is raised again after so long."""


def heard() -> list[signal.Signals]:
    """Return the signals that may end this process: those of ENDING that it was not told to ignore.

    Under nohup it ignores SIGHUP, and in a script's background SIGINT.
    """
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def stop_on_signals() -> None:
    """Make the first signal that may end the process a KeyboardInterrupt, and ignore later ones.

    The stop that follows bounds its own time, and must not be left half done. Python drops what is
    raised within a finalizer, and says so to `sys.unraisablehook`; then it is raised again.
    """

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, INSIST_S)  # later, as this hook's are dropped too
        else:
            tell(what)

    tell, sys.unraisablehook = sys.unraisablehook, dropped
    signal.signal(signal.SIGALRM, _again)
    for number in heard():
        signal.signal(number, _interrupt)


def hear_no_more() -> None:
    """Ignore what `stop_on_signals` has heard, if it was called: a stop has begun.

    A stop after a fault, or at the end of the work, must not become one that a signal has ordered.
    """
    _ignore()
    if signal.getsignal(signal.SIGALRM) is _again:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    _ignore()
    raise KeyboardInterrupt


def _again(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _ignore() -> None:
    for number in ENDING:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_IGN)
