"""Owns the three edit tasks and the rule for a request that names none."""

from enum import StrEnum


class Task(StrEnum):
    """An edit task; its value is also the name of the adapter that serves it."""

    INSERTION = "insertion"
    REMOVAL = "removal"
    WHITE_BALANCE = "white-balance"

    @property
    def needs_mask(self) -> bool:
        """Return whether the task edits inside a mask."""
        return self is not Task.WHITE_BALANCE


def default_task(has_reference: bool) -> Task:
    """Return the task of a request without TASK_TYPE. The frontend repeats this rule."""
    return Task.INSERTION if has_reference else Task.REMOVAL
