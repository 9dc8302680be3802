"""Owns the one tree of errors that a client can meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY_AFTER_S = 5
# Of an id that a client made up, in a text that quotes it.
MAX_QUOTED_CHARS = 128
# The contract's words for a picture of a mask request that cannot be decoded.
IMAGE_REFUSED = "Failed to cache image"


class ServingError(Exception):
    """A failure that a client is sent."""

    status: ClassVar[int] = 500
    """HTTP status code."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
        """One sentence for the user, without a traceback."""
        self.facts: Mapping[str, str | bool] = {}
        """What a program may read beside the detail, by its key in the answer."""

    @property
    def job_error(self) -> str:
        """The text of a job that this error ended."""
        return f"{self.status}: {self.detail}"


class InvalidInputError(ServingError):
    """The request is wrong; the detail names the field."""

    status = 400


class JobNotFinishedError(ServingError):
    """A client asked for the result of a job that has not ended, or was cancelled."""

    status = 400

    def __init__(self, status: str, *, ended: bool) -> None:
        # The first two sentences are the contract's, also where they say "yet".
        never = ". It has ended and will never complete" if ended else ""
        super().__init__(f"Task not completed yet. Current status: {status}{never}")
        self.facts = {"status": status, "ended": ended}


class JobNotFoundError(ServingError):
    """No such job, or it has expired."""

    status = 404

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Task {quoted(job_id)} not found")


class JobFailedError(ServingError):
    """A client asked for the result of a failed job; the detail is the job's error text."""

    def __init__(self, detail: str, status: str) -> None:
        super().__init__(detail)
        self.facts = {"status": status, "ended": True}


class ImageNotFoundError(ServingError):
    """A client named a picture that neither the server nor the model has."""

    status = 404

    def __init__(self, image_id: str) -> None:
        super().__init__(f"Image ID not found or expired: {quoted(image_id)}")


class MaskCancelledError(ServingError):
    """A client cancelled its mask request."""

    status = 400

    def __init__(self, request_id: str) -> None:
        super().__init__(f"Segmentation request {quoted(request_id)} was cancelled")


class ModelCancelledError(ServingError):
    """The model ended a request because it was asked to; ends a job, never an HTTP request."""


class NotCachedError(ServingError):
    """The model does not have the picture of this name; never ends an HTTP request."""


class BackendError(ServingError):
    """Triton or a model failed."""


class AccessError(ServingError):
    """The request needs a key, or came with one that is not good; the text has no part of it."""

    status = 401


class TooMuchError(ServingError):
    """This owner has as much as one may; other owners go on.

    Args:
        detail: what the owner has too much of.
        retry_after_s: seconds after which it may try again.
    """

    status = 429

    def __init__(self, detail: str, retry_after_s: float = RETRY_AFTER_S) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class UnsupportedError(ServingError):
    """The server understands the request but cannot do this."""

    status = 501


class UnavailableError(ServingError):
    """Full, or down; clients should retry after RETRY_AFTER_S seconds."""

    status = 503


class ClosingError(UnavailableError):
    """The server is stopping."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down")


class StoreAwayError(UnavailableError):
    """The store of jobs cannot be reached, or its disk is full.

    Args:
        detail: what a stranger may know.
        reason: what the log is told, such as addresses and users; empty: the detail.
    """

    def __init__(self, detail: str, reason: str = "") -> None:
        super().__init__(detail)
        self.reason = reason or detail


class SharedMemoryFullError(UnavailableError):
    """The memory through which Triton passes tensors to models does not hold these ones too."""

    def __init__(self) -> None:
        super().__init__(
            "Triton's shared memory, /dev/shm, is full: send smaller pictures, or have its "
            "operator raise shm_size (docker run: --shm-size) and start Triton again"
        )


class TritonDownError(UnavailableError):
    """Triton is down: nothing reaches it or the model's process.

    Args:
        detail: what a stranger may know.
        reason: what the log is told, such as addresses; empty: the detail.
    """

    def __init__(self, detail: str, reason: str = "") -> None:
        super().__init__(detail)
        self.reason = reason or detail


class TritonSilentError(TritonDownError):
    """Triton does not answer pings, which does not prove that it has lost its requests."""


class TritonStoppingError(TritonDownError):
    """Triton is stopping: it refuses new requests and finishes those that it has."""


def own_words(message: str) -> str:
    """Return a message of pydantic's without the class that it puts before our own words."""
    return message.removeprefix("Value error, ")


def quoted(text: str) -> str:
    """Return a client's text as an answer may quote it: of bounded length."""
    return text if len(text) <= MAX_QUOTED_CHARS else f"{text[:MAX_QUOTED_CHARS]}…"
