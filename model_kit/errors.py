"""Owns the coded errors that end a request."""

import traceback
from collections.abc import Callable
from enum import StrEnum
from typing import Self


class Code(StrEnum):
    """What went wrong. An error text begins with it in brackets, so that clients can read it."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    UNAVAILABLE = "UNAVAILABLE"
    CANCELLED = "CANCELLED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    INTERNAL = "INTERNAL"

    @property
    def triton_name(self) -> str:
        """Name the attribute of `pb_utils.TritonError` that holds Triton's number for this code."""
        return _TRITON_NAMES.get(self, self.value)


# Triton spells two codes differently and has no code for a device out of memory.
_TRITON_NAMES = {
    Code.INVALID_ARGUMENT: "INVALID_ARG",
    Code.UNIMPLEMENTED: "UNSUPPORTED",
    Code.RESOURCE_EXHAUSTED: "INTERNAL",
}
_FULL = ("shared memory pool", "No space left on device")
# The server is at fault here, so its log needs the traceback.
_LOGGED = (Code.INTERNAL, Code.RESOURCE_EXHAUSTED)


class CodedError(Exception):
    """Ends a request. Its text is `[CODE] message`; the message is meant for the user."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"[{code}] {message}")
        self.code = code
        self.message = message

    def fresh(self) -> Self:
        """Copy this error without its traceback, which keeps a request's arrays alive."""
        return type(self)(self.code, self.message)


def invalid(field: str, text: str) -> CodedError:
    """Make the error for an input that is missing or wrong.

    Args:
        field: the input's name as config.pbtxt spells it, such as `CONDITIONAL_IMAGE_0`.
        text: what is wrong with it.
    """
    return CodedError(Code.INVALID_ARGUMENT, f"{field}: {text}")


def full_shared_memory(text: str) -> CodedError | None:
    """Make the error for a text by which Triton says that /dev/shm is full; None for any other.

    Triton's text names a region of its shared memory, which is no client's business.
    """
    if not any(words in text for words in _FULL):
        return None
    return CodedError(Code.UNAVAILABLE, "Triton's shared memory, /dev/shm, is full")


def error_of(exception: Exception, log_error: Callable[[str], None], message: str) -> CodedError:
    """Turn any exception into the error that the client gets.

    Args:
        exception: ended the request.
        log_error: takes the traceback, where the server is at fault.
        message: for the client, where the exception has no code of its own.

    Returns:
        A new error of the same class, code and message; INTERNAL for an exception without a code.
    """
    if isinstance(exception, CodedError):
        error = exception.fresh()
    else:
        error = full_shared_memory(str(exception)) or CodedError(Code.INTERNAL, message)
    if error.code in _LOGGED or not isinstance(exception, CodedError):
        log_error("".join(traceback.format_exception(exception)))
    return error
