"""Owns the coded errors that only a request for a mask can end with."""

from collections.abc import Callable

from model_kit import errors
from model_kit.errors import Code, CodedError


def nothing_found(reason: str) -> CodedError:
    """Make the error for prompts that no detection fits.

    Args:
        reason: why; in words that hold for every protocol, so without names of inputs.
    """
    # The web client searches the text for these very words.
    return CodedError(Code.INVALID_ARGUMENT, f"FastSAM did not generate any masks: {reason}")


def cancelled() -> CodedError:
    """Make the error of a request that its client has cancelled."""
    return CodedError(Code.CANCELLED, "the request was cancelled")


def error_of(exception: Exception, log_error: Callable[[str], None]) -> CodedError:
    """Turn any exception into the error that the client of a mask gets; see model_kit."""
    return errors.error_of(exception, log_error, "the mask failed; the server's log says why")
