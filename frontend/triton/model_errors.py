"""Owns turning the texts and status codes of Triton and the models into errors."""

from __future__ import annotations

import re

import grpc

from frontend.errors import (
    BackendError,
    InvalidInputError,
    ModelCancelledError,
    NotCachedError,
    ServingError,
    SharedMemoryFullError,
    TritonDownError,
    TritonStoppingError,
    UnavailableError,
    UnsupportedError,
)

_MAX_FOREIGN_CHARS = 300
# Part of Triton's text, with various codes, for a model whose process has died.
DEAD_STUB = "is not healthy"
# Parts of its text for a full /dev/shm, and of a model's. The rest of Triton's names a region,
# which is no client's business.
_FULL = ("shared memory pool", "No space left on device", "/dev/shm, is full")
# gRPC's own texts, with various codes, for a stream that somebody on the way broke off.
_BROKEN_OFF = ("RST_STREAM", "Stream removed")
# Part of its text while it stops, or unloads the model.
UNLOADED = "has no available versions"
# A model's own text for what it does not finish because it ends.
_UNLOADING = "the model is being unloaded"
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

    Triton may put words of its own around it. Words that follow are cut off at the first line
    break, the only border between the two.

    Returns:
        None if the text has no code, and so is Triton's alone.
    """
    if not (found := _CODED.search(message)):
        return None
    code, text = found.groups()
    if code == "UNAVAILABLE" and (full := _full(text)):
        return full
    if code == "UNAVAILABLE" and text.startswith(_UNLOADING):
        return TritonStoppingError(text)
    return _BY_CODE[code](text if found.start() == 0 else _first_line(text))


def from_model(message: str) -> ServingError:
    """Turn the error text of a Triton response into an error.

    Only the first line of Triton's own text is kept, because a traceback may follow.
    """
    if error := coded(message) or _full(message):
        return error
    error_type: type[ServingError] = BackendError
    if DEAD_STUB in message:
        error_type = TritonDownError
    elif UNLOADED in message:
        error_type = TritonStoppingError
    return error_type(f"Triton could not run the model: {_first_line(message)}")


def status_error(error: grpc.aio.AioRpcError) -> ServingError:
    """Turn the status of a failed call into an error.

    A server that ends its process, or a proxy, cancels the calls that it has. A call that this
    side cancels has no status.
    """
    code, details = error.code(), error.details() or ""
    if own := coded(details) or _full(details):
        return own
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return BackendError("the model did not finish in time")
    gone = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    if code in gone or any(words in details for words in _BROKEN_OFF):
        reason = f"{code.name}: {_first_line(details)}"
        return TritonDownError("Triton is not available", reason)
    if code is grpc.StatusCode.NOT_FOUND:
        return TritonStoppingError("Triton does not have the model")
    if DEAD_STUB in details:
        return TritonDownError("the model's process has died")
    return BackendError(f"Triton failed with {code.name}")


def _full(text: str) -> ServingError | None:
    if not any(words in text for words in _FULL):
        return None
    return SharedMemoryFullError()


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0][:_MAX_FOREIGN_CHARS]
