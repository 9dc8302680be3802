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


class EarlyCancels:
    """Remembers ids for PATIENCE_S: those whose cancel came early, and those answered lately.

    The cancel of an answered request is a late one and must not end the next request of its id.

    Args:
        clock: gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._cancelled = _Ids(clock)
        self._answered = _Ids(clock)

    def note_cancel(self, request_id: str) -> None:
        """Remember the cancel of a request that has not come, unless one was answered lately."""
        if len(request_id) <= MAX_ID_CHARS and not self.answered(request_id):
            self._cancelled.add(request_id)

    def note_answer(self, request_id: str) -> None:
        """Remember that a request has ended."""
        self._answered.add(request_id)

    def answered(self, request_id: str) -> bool:
        """Return whether a request of that id ended within PATIENCE_S."""
        return request_id in self._answered

    def take(self, request_id: str) -> bool:
        """Return whether the request that comes now was cancelled; its cancel is used up."""
        if not self._cancelled.pop(request_id):
            return False
        self._answered.add(request_id)
        return True


class _Ids:
    """A bounded set whose members leave after PATIENCE_S."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # In the order of their coming, with the times at which they leave.
        self._ends: dict[str, float] = {}

    def __contains__(self, request_id: str) -> bool:
        return self._ends.get(request_id, 0.0) > self._clock()

    def add(self, request_id: str) -> None:
        self._ends.pop(request_id, None)
        self._ends[request_id] = self._clock() + PATIENCE_S
        if len(self._ends) > MAX_REMEMBERED:
            del self._ends[next(iter(self._ends))]

    def pop(self, request_id: str) -> bool:
        return self._ends.pop(request_id, 0.0) > self._clock()
