"""An interrupt is heard, wherever the program was when it came."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from frontend.cli import session
from frontend.cli.session import Interrupted, Interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator


class Loud:
    """Has a signal come while it is finalized, where Python drops what is raised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def long_before_it_insists(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no alarm come of itself, and put back the timer, which is also pytest-timeout's."""
    monkeypatch.setattr(session, "INSIST_S", 3600)
    before = signal.getitimer(signal.ITIMER_REAL)
    yield
    signal.setitimer(signal.ITIMER_REAL, *before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_within_a_finalizer_is_raised_again() -> None:
    with Interrupts() as interrupts:
        loud = Loud()
        del loud
        assert all(signal.getitimer(signal.ITIMER_REAL))  # it comes again and again
        with pytest.raises(Interrupted) as interrupted:
            signal.raise_signal(signal.SIGALRM)
        interrupts.heard()
    assert interrupted.value.code == 128 + signal.SIGTERM


def test_an_interrupt_that_was_heard_comes_once() -> None:
    with Interrupts() as interrupts:
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
        assert all(signal.getitimer(signal.ITIMER_REAL))
        interrupts.heard()
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
