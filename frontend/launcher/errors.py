"""Owns the one error of the launcher."""

from __future__ import annotations


class LaunchError(Exception):
    """Triton cannot be started, or not be kept running."""

    def __init__(self, *problems: str, log_tail: str = "") -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        """One line each: what is wrong, and what to do about it."""
        self.log_tail = log_tail
        """The last lines of Triton's log, if it has written any."""
