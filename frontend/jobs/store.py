"""Owns what a store of jobs is: their logs, inputs and results.

A store keeps a log per job that obeys `rules.follow_up`. A job's state is nowhere else, so that
another store can take the place of the one in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from frontend.domain.jobs import JobEvent

if TYPE_CHECKING:
    from frontend.domain.edits import EditParams, EditResult

# A sequence number, from 1 without gaps, and its event.
Entry = tuple[int, JobEvent]


class JobStore(Protocol):
    """All jobs. Every method but `create` raises JobNotFoundError for an unknown or expired id."""

    async def create(self, job_id: str, params: EditParams, event: JobEvent) -> None:
        """Add a job whose log begins with `event`.

        Raises:
            UnavailableError: its images do not fit into the store now.
        """

    async def append(self, job_id: str, event: JobEvent, result: EditResult | None = None) -> bool:
        """Add `event` to the log, with the job's result where it ends in one.

        Returns:
            Whether it was added; False where `follow_up` forbids it.

        Raises:
            UnavailableError: the result or the preview does not fit into the store now.
        """

    async def read(self, job_id: str, after: int = 0, wait_s: float = 0) -> list[Entry]:
        """Return the entries numbered above `after`, oldest first.

        Where there are none yet, wait up to `wait_s` seconds for the first.
        """

    async def last(self, job_id: str) -> Entry:
        """Return the newest entry."""

    async def params(self, job_id: str) -> EditParams:
        """Return what the job was created with.

        Raises:
            LookupError: it was released.
        """

    async def release(self, job_id: str) -> None:
        """Forget the inputs that only the model needs; a final event does it as well."""

    async def original(self, job_id: str) -> bytes:
        """Return the picture that the job edits, encoded as the client sent it."""

    async def result(self, job_id: str) -> EditResult | None:
        """Return what the job ended in; None unless it is done."""
