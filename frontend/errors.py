"""Owns the one tree of errors that a client can meet, and the codes the models use for them."""

from __future__ import annotations

import re
from typing import ClassVar

RETRY_AFTER_S = 5
_MAX_FOREIGN_CHARS = 300
# What Triton says, with various codes, for a model whose process has died.
DEAD_STUB = "is not healthy"
# What it says when it is on its way out, or the model is.
UNLOADED = "has no available versions"
# The contract's words for a picture of a mask request that cannot be decoded.
IMAGE_REFUSED = "Failed to cache image"


class ServingError(Exception):
    """A failure that a client is told about.

    Attributes:
        status: HTTP status code.
        detail: one sentence for the user, without a traceback.
    """

    status: ClassVar[int] = 500

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def job_error(self) -> str:
        """The text of a job that this error ended."""
        return f"{self.status}: {self.detail}"


class InvalidInputError(ServingError):
    """The request cannot be served as it is; the detail names the field."""

    status = 400


class JobNotFinishedError(ServingError):
    """A result was asked of a job that has none."""

    status = 400

    def __init__(self, status: str) -> None:
        super().__init__(f"Task not completed yet. Current status: {status}")


class JobNotFoundError(ServingError):
    """No such job, or it has expired."""

    status = 404

    def __init__(self, task_id: str) -> None:
        super().__init__(f"Task {task_id} not found")


class JobFailedError(ServingError):
    """A result was asked of a failed job; the detail is the job's error text."""


class ImageNotFoundError(ServingError):
    """A picture was named that neither the server nor the model has, any more or at all."""

    status = 404

    def __init__(self, image_id: str) -> None:
        super().__init__(f"Image ID not found or expired: {image_id}")


class MaskCancelledError(ServingError):
    """A mask request ended because its client wanted it to."""

    status = 400

    def __init__(self, request_id: str) -> None:
        super().__init__(f"Segmentation request {request_id} was cancelled")


class StoppedError(ServingError):
    """The model stopped because it was told to; ends a job, never an HTTP request."""


class NotCachedError(ServingError):
    """The model does not have what it was asked for by name; never ends an HTTP request."""


class BackendError(ServingError):
    """Triton or a model failed."""


class UnsupportedError(ServingError):
    """The server knows what is meant and cannot do it."""

    status = 501


class UnavailableError(ServingError):
    """Not now: full, or not there; clients should retry after RETRY_AFTER_S seconds."""

    status = 503


class ClosingError(UnavailableError):
    """The server is on its way out."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down")


class TritonAwayError(UnavailableError):
    """Triton or the model's process cannot be reached."""


class TritonLeavingError(TritonAwayError):
    """Triton takes no more requests for the model; those that it has go on to their end."""


_BY_CODE: dict[str, type[ServingError]] = {
    "INVALID_ARGUMENT": InvalidInputError,
    "NOT_FOUND": NotCachedError,
    "UNIMPLEMENTED": UnsupportedError,
    "UNAVAILABLE": UnavailableError,
    "CANCELLED": StoppedError,
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
        error_type = TritonAwayError
    elif UNLOADED in message:
        error_type = TritonLeavingError
    return error_type(f"Triton could not run the model: {_first_line(message)}")


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0][:_MAX_FOREIGN_CHARS]
