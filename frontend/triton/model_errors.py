"""Owns turning what Triton and the models say of a failure, as text or status, into errors."""

from __future__ import annotations

import re

import grpc

from frontend.errors import (
    BackendError,
    InvalidInputError,
    ModelCancelledError,
    NotCachedError,
    ServingError,
    TritonDownError,
    TritonStoppingError,
    UnavailableError,
    UnsupportedError,
)

_MAX_FOREIGN_CHARS = 300
# What Triton says, with various codes, for a model whose process has died.
DEAD_STUB = "is not healthy"
# What it says when it is on its way out, or the model is.
UNLOADED = "has no available versions"
_BY_CODE: dict[str, type[ServingError]] = {
    "INVALID_ARGUMENT": InvalidInputError,
    "NOT_FOUND": NotCachedError,
    "UNIMPLEMENTED": UnsupportedError,
    "UNAVAILABLE": UnavailableError,
    "CANCELLED": ModelCancelledError,
    "RESOURCE_EXHAUSTED": BackendError,
    "INTERNAL": BackendError,
}
_CODED = re.compile(rf"\[({'|'.join(_BY_CODE)})\] (.+)", re.DOTALL)


def coded(message: str) -> ServingError | None:
    """Turn a model's own error text, `[INVALID_ARGUMENT] field: text`, into an error.

    Triton may wrap words of its own around it; of those after it only a line can be told apart.

    Returns:
        None where the text has no code, and so is all Triton's.
    """
    if not (found := _CODED.search(message)):
        return None
    code, text = found.groups()
    return _BY_CODE[code](text if found.start() == 0 else _first_line(text))


def from_model(message: str) -> ServingError:
    """Turn the error text of a Triton response into an error.

    Triton's own may carry a traceback, so only its first line is kept.
    """
    if error := coded(message):
        return error
    error_type: type[ServingError] = BackendError
    if DEAD_STUB in message:
        error_type = TritonDownError
    elif UNLOADED in message:
        error_type = TritonStoppingError
    return error_type(f"Triton could not run the model: {_first_line(message)}")


def status_error(error: grpc.aio.AioRpcError) -> ServingError:
    """Turn the status of a failed call into an error."""
    code, details = error.code(), error.details() or ""
    if own := coded(details):
        return own
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return BackendError("the model did not finish in time")
    if code is grpc.StatusCode.UNAVAILABLE:
        return TritonDownError("Triton is not available")
    if code is grpc.StatusCode.NOT_FOUND:
        return TritonStoppingError("Triton does not have the model")
    if DEAD_STUB in details:
        return TritonDownError("the model's process has died")
    return BackendError(f"Triton failed with {code.name}")


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0][:_MAX_FOREIGN_CHARS]
