"""Owns the one tree of errors that a client can meet, and the codes the models use for them."""

from __future__ import annotations

import re
from typing import ClassVar

RETRY_AFTER_S = 5
_CODED = re.compile(r"\[([A-Z_]+)\] (.+)", re.DOTALL)
_MAX_FOREIGN_CHARS = 300


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


class EditCancelledError(ServingError):
    """The model stopped the edit because it was told to; ends a job, never an HTTP request."""


class BackendError(ServingError):
    """Triton or a model failed."""


class UnsupportedError(ServingError):
    """The server knows what is meant and cannot do it."""

    status = 501


class UnavailableError(ServingError):
    """Not now: full, or not there; clients should retry after RETRY_AFTER_S seconds."""

    status = 503


class TritonAwayError(UnavailableError):
    """Triton or the model's process cannot be reached."""


_BY_CODE: dict[str, type[ServingError]] = {
    "INVALID_ARGUMENT": InvalidInputError,
    "UNIMPLEMENTED": UnsupportedError,
    "UNAVAILABLE": UnavailableError,
    "CANCELLED": EditCancelledError,
    "RESOURCE_EXHAUSTED": BackendError,
    "INTERNAL": BackendError,
}


def from_model(message: str) -> ServingError:
    """Turn the error text of a Triton response into an error.

    Models begin theirs with a code: `[INVALID_ARGUMENT] field: text`. A text without one is
    Triton's own and may carry a traceback, so only its first line is kept.
    """
    if coded := _CODED.match(message):
        return _BY_CODE.get(coded[1], BackendError)(coded[2])
    first_line = message.split("\n", 1)[0][:_MAX_FOREIGN_CHARS]
    return BackendError(f"Triton could not run the model: {first_line}")
