"""Owns the protocol of a store of jobs: their logs, inputs and results.

A store keeps one log per job, and the log obeys `rules.follow_up`. Nothing else holds a job's
state, so another store can replace the one in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from frontend.domain.jobs import JobEvent

if TYPE_CHECKING:
    from collections.abc import Collection

    from frontend.domain.edits import EditParams, EditResult
    from frontend.domain.jobs import JobStatus
    from frontend.domain.owners import Owner

# An event and its number in the log, from 1 without gaps.
Entry = tuple[int, JobEvent]


class Listed(NamedTuple):
    """A job in a list of jobs."""

    number: int
    """Its place in the order of creation, from 1; never given again."""
    job_id: str
    task_type: str
    first: JobEvent
    """The entry that created it."""
    last: JobEvent
    """The newest entry."""


class JobStore(Protocol):
    """All jobs. Every method that takes a job_id raises JobNotFoundError for an unknown one.

    `create` is the exception.
    """

    async def create(
        self, job_id: str, params: EditParams, original: bytes, event: JobEvent, owner: Owner
    ) -> None:
        """Add a job whose log begins with `event`.

        Args:
            job_id: the job.
            params: the edit.
            original: the file that its picture came as.
            event: the first entry.
            owner: whose it is.

        Raises:
            UnavailableError: the job's images do not fit into the store now.
            TooMuchError: they do not beside the owner's other unfinished jobs.
        """

    async def append(self, job_id: str, event: JobEvent, result: EditResult | None = None) -> bool:
        """Add `event` to the log, and the job's result beside its last event if it is done.

        Returns:
            Whether it was added; False if `follow_up` forbids it.

        Raises:
            UnavailableError: the result or the preview does not fit into the store now.
        """

    async def read(self, job_id: str, after: int = 0, wait_s: float = 0) -> list[Entry]:
        """Return the entries numbered above `after`, oldest first.

        If there are none yet, wait for the first, at most `wait_s` seconds.
        """

    async def last(self, job_id: str) -> Entry:
        """Return the newest entry."""

    async def params(self, job_id: str) -> EditParams:
        """Return the edit that the job was created with.

        Raises:
            LookupError: the inputs were released.
        """

    async def release(self, job_id: str) -> None:
        """Forget the inputs that only the model needs; the final event does so too."""

    async def owner(self, job_id: str) -> str:
        """Return the name of the job's owner."""

    async def newest(
        self,
        owner: str,
        limit: int,
        before: int | None = None,
        statuses: Collection[JobStatus] = (),
    ) -> list[Listed]:
        """Return an owner's jobs, newest first.

        Args:
            owner: its name.
            limit: maximum number of jobs.
            before: only jobs numbered below; None: all.
            statuses: only jobs whose newest entry has one of these; empty: all.
        """

    async def original(self, job_id: str) -> bytes:
        """Return the picture that the job edits, the file as the client sent it."""

    async def result(self, job_id: str) -> EditResult | None:
        """Return the job's result; None unless the job is done."""
