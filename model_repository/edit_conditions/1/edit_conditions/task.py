"""The three edit tasks and the rule for a request that does not name one."""

from enum import StrEnum


class Task(StrEnum):
    """An edit task; its value is also the name of the adapter that serves it."""

    INSERTION = "insertion"
    REMOVAL = "removal"
    WHITE_BALANCE = "white-balance"

    @property
    def needs_mask(self) -> bool:
        """Whether the task edits inside a mask."""
        return self is not Task.WHITE_BALANCE


def default_task(has_reference: bool) -> Task:
    """The task of a request without TASK_TYPE."""
    return Task.INSERTION if has_reference else Task.REMOVAL
