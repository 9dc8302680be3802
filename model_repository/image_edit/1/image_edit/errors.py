"""The coded errors that end an edit."""

import re
import traceback
from collections.abc import Callable
from enum import StrEnum


class Code(StrEnum):
    """What went wrong, as clients read it at the head of an error text."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    UNAVAILABLE = "UNAVAILABLE"
    CANCELLED = "CANCELLED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    INTERNAL = "INTERNAL"


class EditError(Exception):
    """Ends an edit. Its text is `[CODE] message`; the message is meant for the user."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"[{code}] {message}")
        self.code = code
        self.message = message


class DeviceLostError(EditError):
    """The device failed in a way that only a new process can get over."""


def invalid(field: str, text: str) -> EditError:
    """The error for an input that is missing or wrong.

    Args:
        field: the input's name as config.pbtxt spells it.
        text: what is wrong with it.
    """
    return EditError(Code.INVALID_ARGUMENT, f"{field}: {text}")


def cancelled() -> EditError:
    """The error of an edit that ended because its client wanted it to."""
    return EditError(Code.CANCELLED, "the edit was cancelled")


def error_of_conditions(text: str) -> EditError:
    """The error for what edit_conditions answered, whatever Triton has wrapped around it.

    A text without a code is Triton's own; it becomes the cause, for the log.
    """
    found = re.search(rf"\[({'|'.join(Code)})\] (.*)", text, re.DOTALL)
    if found:
        return EditError(Code(found[1]), found[2])
    error = EditError(Code.INTERNAL, "the condition images could not be built")
    error.__cause__ = RuntimeError(text)
    return error


def error_of(exception: Exception, log: Callable[[str], None]) -> EditError:
    """The error that a client gets for an exception; its traceback is for the log only.

    Returns:
        A new error, because the exception's traceback keeps the tensors of the edit alive.
    """
    error = (
        exception
        if isinstance(exception, EditError)
        else EditError(Code.INTERNAL, "the edit failed; the server's log says why")
    )
    if error.code in (Code.INTERNAL, Code.RESOURCE_EXHAUSTED):
        log("".join(traceback.format_exception(exception)))
    return type(error)(error.code, error.message)
