"""Owns what the engine is at, as other threads see it: whether it goes on, and giving it up."""

import threading
from collections.abc import Callable
from time import perf_counter


class GivenUpError(Exception):
    """Nobody wants the unit of work any more in which this was raised."""


class Work:
    """What the engine's thread is at.

    That thread calls `begin`, `go_on` and `end`; any thread may ask `quiet_seconds`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._went_on_at: float | None = None
        self._is_wanted: Callable[[], bool] = lambda: True

    def begin(self, is_wanted: Callable[[], bool]) -> None:
        """Begin work that may be given up as soon as `is_wanted` says no."""
        self._is_wanted = is_wanted
        with self._lock:
            self._went_on_at = perf_counter()

    def go_on(self) -> None:
        """Give a sign of life; the engine calls this between two layers of a network.

        Raises:
            GivenUpError: nobody wants the work any more.
        """
        with self._lock:
            if self._went_on_at is not None:
                self._went_on_at = perf_counter()
        if not self._is_wanted():
            raise GivenUpError

    def end(self) -> None:
        """End the work; nothing of it runs any more."""
        self._is_wanted = lambda: True
        with self._lock:
            self._went_on_at = None

    def quiet_seconds(self) -> float:
        """Return how long the engine has given no sign of life; 0 if it is idle."""
        with self._lock:
            return 0.0 if self._went_on_at is None else perf_counter() - self._went_on_at
