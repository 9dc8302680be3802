"""Owns the one error of the launcher."""

from __future__ import annotations


class LaunchError(Exception):
    """Triton cannot be started, or kept up.

    Attributes:
        problems: one line each, saying what is wrong and what to do about it.
        log_tail: the last lines of Triton's log, where it got as far as writing one.
    """

    def __init__(self, *problems: str, log_tail: str = "") -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.log_tail = log_tail
