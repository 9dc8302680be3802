"""Owns the coded errors that only an edit can end with."""

import re
from collections.abc import Callable

from model_kit import errors
from model_kit.errors import Code, CodedError


class DeviceLostError(CodedError):
    """The device failed; only a new process can use it again."""


# Parts of Triton's texts for a model that is being unloaded, as this one soon is. Not that of a
# process which has died: this very edit may have killed it, and would do so again.
_GONE = (
    "has no available versions",
    "has stopped accepting new inference requests",
    "is not ready",
)


def cancelled() -> CodedError:
    """Make the error of an edit that its client has cancelled."""
    return CodedError(Code.CANCELLED, "the edit was cancelled")


def unloading() -> CodedError:
    """Make the error of an edit that this process does not finish; the frontend knows its text."""
    return CodedError(Code.UNAVAILABLE, "the model is being unloaded")


def error_of_conditions(text: str) -> CodedError:
    """Turn an error text of edit_conditions, with whatever Triton wraps around it, into an error.

    A text without a code is Triton's own. It becomes the cause, for the log.
    """
    found = re.search(rf"\[({'|'.join(Code)})\] (.*)", text, re.DOTALL)
    if found:
        return CodedError(Code(found[1]), found[2])
    if full := errors.full_shared_memory(text):
        return full
    if any(words in text for words in _GONE):
        return unloading()
    error = CodedError(Code.INTERNAL, "the condition images could not be built")
    error.__cause__ = RuntimeError(text)
    return error


def error_of(exception: Exception, log_error: Callable[[str], None]) -> CodedError:
    """Turn any exception into the error that the client of an edit gets; see model_kit."""
    return errors.error_of(exception, log_error, "the edit failed; the server's log says why")
