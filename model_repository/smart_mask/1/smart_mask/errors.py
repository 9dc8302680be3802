"""Owns the coded errors that a request for a mask can end in."""

import traceback
from collections.abc import Callable
from enum import StrEnum


class Code(StrEnum):
    """What went wrong, as clients read it at the head of an error text."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    UNAVAILABLE = "UNAVAILABLE"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"


class MaskError(Exception):
    """Ends a request. Its text is `[CODE] message`; the message is meant for the user."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"[{code}] {message}")
        self.code = code


def invalid(field: str, text: str) -> MaskError:
    """The error for an input that is missing or wrong.

    Args:
        field: the input's name as config.pbtxt spells it.
        text: what is wrong with it.
    """
    return MaskError(Code.INVALID_ARGUMENT, f"{field}: {text}")


def nothing_found() -> MaskError:
    """The error where no detection fits the prompts; the web client knows these very words."""
    return MaskError(Code.INVALID_ARGUMENT, "FastSAM did not generate any masks")


def cancelled() -> MaskError:
    """The error of a request that ended because its client wanted it to."""
    return MaskError(Code.CANCELLED, "the request was cancelled")


def error_of(exception: Exception, log: Callable[[str], None]) -> MaskError:
    """The error that a client gets for an exception; the traceback of a fault is for the log."""
    if isinstance(exception, MaskError):
        return exception
    log("".join(traceback.format_exception(exception)))
    return MaskError(Code.INTERNAL, "the mask failed; the server's log says why")
