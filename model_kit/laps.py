"""Owns the time that each stage of a request takes."""

import time


class Laps:
    """A stopwatch that starts when it is made."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """By stage, in the order of their first notes."""
        self._noted = time.perf_counter()

    def note(self, stage: str) -> None:
        """Add the time since the last note, or since the beginning, to a stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._noted
        self._noted = now
