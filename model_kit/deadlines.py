"""Owns how long threads have been at what they do, as other threads see it."""

import contextlib
import threading
import time
from collections.abc import Iterator

from model_kit.errors import Code, CodedError

LATE_S = 60.0
"""A unit of work that takes longer makes its model unready. The largest pictures take far less."""
STUCK_S = 300.0
"""One that takes this long will not end: its process has to."""


class Units:
    """The units of work that threads are at; each method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: dict[object, float] = {}

    @contextlib.contextmanager
    def unit(self) -> Iterator[None]:
        """Be at a unit of work while the context lasts."""
        key = object()
        with self._lock:
            self._begun[key] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._begun[key]

    def longest_s(self) -> float:
        """Return how many seconds ago the oldest unit began that has not ended; 0 if none."""
        with self._lock:
            return time.monotonic() - min(self._begun.values()) if self._begun else 0.0


def refuse_if_late(name: str, seconds: float) -> None:
    """Answer a ping only if a thread keeps its deadline, so that readiness fails if not.

    Args:
        name: what the thread does, for the client.
        seconds: how long it has been at its unit of work.

    Raises:
        CodedError: UNAVAILABLE: it is late.
    """
    if seconds > LATE_S:
        raise CodedError(Code.UNAVAILABLE, f"{name} has not come to an end for {seconds:.0f} s")
