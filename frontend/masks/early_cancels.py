"""Owns the cancels that come before their requests: they wait a few seconds for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.domain.masks import MAX_ID_CHARS

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds. A request with a picture is longer on its way than the cancel that follows it.
PATIENCE_S = 5.0
# Ids of each kind at most, of all owners.
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
    """A bounded set whose members leave after PATIENCE_S.

    Beyond the bound the owner of the most loses its oldest.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # By owner and request_id, in the order of their coming, when they leave.
        self._ends: dict[str, dict[str, float]] = {}

    def __contains__(self, name: Name) -> bool:
        owner, request_id = name
        return self._ends.get(owner, {}).get(request_id, 0.0) > self._clock()

    def add(self, name: Name) -> None:
        self.pop(name)
        owner, request_id = name
        self._ends.setdefault(owner, {})[request_id] = self._clock() + PATIENCE_S
        if sum(map(len, self._ends.values())) > MAX_REMEMBERED:
            largest = max(self._ends, key=lambda each: len(self._ends[each]))
            self.pop((largest, next(iter(self._ends[largest]))))

    def pop(self, name: Name) -> bool:
        owner, request_id = name
        own = self._ends.get(owner, {})
        end = own.pop(request_id, 0.0)
        if not own:
            self._ends.pop(owner, None)
        return end > self._clock()
