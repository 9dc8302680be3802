"""Owns the cancels that come before their requests: they wait a few seconds for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.domain.masks import MAX_ID_CHARS

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds. A request with a picture is longer on its way than the cancel that follows it.
PATIENCE_S = 5.0
# Ids of each kind at most; beyond them the oldest is forgotten.
MAX_REMEMBERED = 1024


Name = tuple[str, str]
"""Owner and request_id: nobody cancels the request of another."""


class EarlyCancels:
    """Remembers ids for PATIENCE_S: those whose cancel came early, and those answered lately.

    The cancel of an answered request is a late one and must not end the next request of its id.

    Args:
        clock: gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._cancelled = _Ids(clock)
        self._answered = _Ids(clock)

    def note_cancel(self, name: Name) -> None:
        """Remember the cancel of a request that has not come, unless one was answered lately."""
        if len(name[1]) <= MAX_ID_CHARS and not self.answered(name):
            self._cancelled.add(name)

    def note_answer(self, name: Name) -> None:
        """Remember that a request has ended."""
        self._answered.add(name)

    def answered(self, name: Name) -> bool:
        """Return whether a request of that id ended within PATIENCE_S."""
        return name in self._answered

    def take(self, name: Name) -> bool:
        """Return whether the request that comes now was cancelled; its cancel is used up."""
        if not self._cancelled.pop(name):
            return False
        self._answered.add(name)
        return True


class _Ids:
    """A bounded set whose members leave after PATIENCE_S."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # In the order of their coming, with the times at which they leave.
        self._ends: dict[Name, float] = {}

    def __contains__(self, name: Name) -> bool:
        return self._ends.get(name, 0.0) > self._clock()

    def add(self, name: Name) -> None:
        self._ends.pop(name, None)
        self._ends[name] = self._clock() + PATIENCE_S
        if len(self._ends) > MAX_REMEMBERED:
            del self._ends[next(iter(self._ends))]

    def pop(self, name: Name) -> bool:
        return self._ends.pop(name, 0.0) > self._clock()
