"""Owns a clock for tests."""

from __future__ import annotations


class Clock:
    """A clock that stands still until it is moved.

    Args:
        now: what it shows at first, in seconds.
    """

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now
