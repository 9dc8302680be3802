"""Owns the one tree of errors that a client can meet."""

from __future__ import annotations

from typing import ClassVar

RETRY_AFTER_S = 5
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

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Task {job_id} not found")


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


class ModelCancelledError(ServingError):
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


class TritonDownError(UnavailableError):
    """Triton or the model's process cannot be reached."""


class TritonStoppingError(TritonDownError):
    """Triton takes no more requests for the model; those that it has go on to their end."""
