"""An interrupt is heard, wherever the program was when it came."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from frontend.cli import session
from frontend.cli.session import Interrupted, Interrupts


class Loud:
    """Has a signal come while it is finalized, where Python drops what is raised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_within_a_finalizer_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "INSIST_S", 0.05)
    with Interrupts():
        loud = Loud()
        del loud
        with pytest.raises(Interrupted) as interrupted:
            threading.Event().wait(60)
    assert interrupted.value.code == 128 + signal.SIGTERM


def test_an_interrupt_that_was_heard_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "INSIST_S", 0.05)
    with Interrupts() as interrupts:
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
        interrupts.heard()
        threading.Event().wait(0.3)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
