"""Owns what a job may become, and the store of all jobs: their logs, inputs and results.

The rules are one pure function, `follow_up`; a store keeps a log per job that obeys it. A job's
state is nowhere else, so that another store, Redis for one, can take the place of this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from frontend.domain.jobs import JobEvent, JobStatus
from frontend.errors import JobNotFoundError, UnavailableError

if TYPE_CHECKING:
    from frontend.domain.edits import EditParams, EditResult

# Entries of one log. A job has at most 100 steps, a few stages and one entry for each place in
# the queue (512 at most), so only a model gone wild loses its oldest ones.
MAX_EVENTS = 1024
# What an entry takes beside its preview.
EVENT_BYTES = 1024
# What progress may reach before the job is done.
MAX_UNFINISHED_PROGRESS = 0.999

_ENDS = {JobStatus.ERROR, JobStatus.CANCELLED}
_SUCCESSORS: dict[JobStatus, set[JobStatus]] = {
    JobStatus.QUEUED: {JobStatus.QUEUED, JobStatus.PROCESSING, *_ENDS},
    JobStatus.PROCESSING: {JobStatus.PROCESSING, JobStatus.DONE, *_ENDS},
    JobStatus.DONE: set(),
    JobStatus.ERROR: set(),
    JobStatus.CANCELLED: set(),
}

# A sequence number, from 1 without gaps, and its event.
Entry = tuple[int, JobEvent]


def follow_up(last: JobEvent, event: JobEvent) -> JobEvent | None:
    """Return `event` as it may follow `last` in a log, or None where it may not.

    Nothing follows a final event. Steps and progress never fall, and progress is 1 exactly at
    `done`.
    """
    if event.status not in _SUCCESSORS[last.status]:
        return None
    if event.status is JobStatus.DONE:
        return replace(event, current_step=event.total_steps, progress=1.0)
    progress = max(last.progress, min(event.progress, MAX_UNFINISHED_PROGRESS))
    current_step = max(last.current_step, event.current_step)
    return replace(event, current_step=current_step, progress=progress)


class JobStore(Protocol):
    """All jobs. Every method but `create` raises JobNotFoundError for an unknown or expired id."""

    async def create(self, task_id: str, params: EditParams, event: JobEvent) -> None:
        """Add a job whose log begins with `event`.

        Raises:
            UnavailableError: its images do not fit into the store now.
        """

    async def append(self, task_id: str, event: JobEvent, result: EditResult | None = None) -> bool:
        """Add `event` to the log, with the job's result where it ends in one.

        Returns:
            Whether it was added; False where `follow_up` forbids it.

        Raises:
            UnavailableError: the result or the preview does not fit into the store now.
        """

    async def read(self, task_id: str, after: int = 0, wait_s: float = 0) -> list[Entry]:
        """Return the entries numbered above `after`, oldest first.

        Where there are none yet, wait up to `wait_s` seconds for the first.
        """

    async def last(self, task_id: str) -> Entry:
        """Return the newest entry."""

    async def params(self, task_id: str) -> EditParams:
        """Return what the job was created with.

        Raises:
            LookupError: it was released.
        """

    async def release(self, task_id: str) -> None:
        """Forget the inputs that only the model needs; a final event does it as well."""

    async def original(self, task_id: str) -> bytes:
        """Return the picture that the job edits, encoded as the client sent it."""

    async def result(self, task_id: str) -> EditResult | None:
        """Return what the job ended in; None unless it is done."""


@dataclass(eq=False)
class _Job:
    events: deque[JobEvent]
    params: EditParams | None
    original: bytes
    # Bytes held: the images still needed, the log and the result.
    size: int = 0
    appended: int = 1
    result: EditResult | None = None
    # Set, and replaced, by every new entry.
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    expiry: asyncio.TimerHandle | None = None

    @property
    def last(self) -> JobEvent:
        return self.events[-1]

    def after(self, seq: int) -> list[Entry]:
        oldest = self.appended - len(self.events) + 1
        start = max(oldest, seq + 1)
        return list(enumerate(itertools.islice(self.events, start - oldest, None), start))


class MemoryJobStore:
    """A JobStore in this process; its methods suspend only to wait.

    Args:
        memory_bytes: bound on what it holds. Unfinished jobs may be created up to half of it;
            beyond it, the jobs that finished first are forgotten.
        ttl_s: how long a finished job is kept.
    """

    def __init__(self, memory_bytes: int, ttl_s: float) -> None:
        self._memory_bytes = memory_bytes
        self._ttl_s = ttl_s
        self._jobs: dict[str, _Job] = {}
        # In the order in which they finished.
        self._finished: dict[str, _Job] = {}
        self._size = 0
        self._unfinished_size = 0

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    async def create(self, task_id: str, params: EditParams, event: JobEvent) -> None:
        """See JobStore."""
        size = params.image_bytes + EVENT_BYTES
        if self._unfinished_size + size > self._memory_bytes // 2:
            raise UnavailableError("The server holds as many images of waiting jobs as it may")
        self._make_space(size)
        job = _Job(deque([event], MAX_EVENTS), params, params.image)
        self._jobs[task_id] = job
        self._resize(job, size)

    async def append(self, task_id: str, event: JobEvent, result: EditResult | None = None) -> bool:
        """See JobStore."""
        job = self._find(task_id)
        if (accepted := follow_up(job.last, event)) is None:
            return False
        result_size = len(result.image) + len(result.info) if result else 0
        self._make_space(len(event.preview) + result_size)
        dropped = job.events[0] if len(job.events) == MAX_EVENTS else None
        job.events.append(accepted)
        job.appended += 1
        job.result = result
        self._resize(job, _event_size(accepted) + result_size - _event_size(dropped))
        if accepted.status.terminal:
            await self.release(task_id)
            self._unfinished_size -= job.size
            self._finished[task_id] = job
            loop = asyncio.get_running_loop()
            job.expiry = loop.call_later(self._ttl_s, self._forget, task_id)
        job.grown.set()
        job.grown = asyncio.Event()
        return True

    async def read(self, task_id: str, after: int = 0, wait_s: float = 0) -> list[Entry]:
        """See JobStore."""
        job = self._find(task_id)
        if not (entries := job.after(after)) and wait_s > 0 and not job.last.status.terminal:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await job.grown.wait()
            entries = job.after(after)
        return entries

    async def last(self, task_id: str) -> Entry:
        """See JobStore."""
        job = self._find(task_id)
        return job.appended, job.last

    async def params(self, task_id: str) -> EditParams:
        """See JobStore."""
        if (params := self._find(task_id).params) is None:
            raise LookupError(f"the inputs of {task_id} were released")
        return params

    async def release(self, task_id: str) -> None:
        """See JobStore."""
        job = self._find(task_id)
        if job.params is not None:
            self._resize(job, len(job.original) - job.params.image_bytes)
            job.params = None

    async def original(self, task_id: str) -> bytes:
        """See JobStore."""
        return self._find(task_id).original

    async def result(self, task_id: str) -> EditResult | None:
        """See JobStore."""
        return self._find(task_id).result

    def _find(self, task_id: str) -> _Job:
        try:
            return self._jobs[task_id]
        except KeyError:
            raise JobNotFoundError(task_id) from None

    def _resize(self, job: _Job, by: int) -> None:
        job.size += by
        self._size += by
        self._unfinished_size += by

    def _make_space(self, size: int) -> None:
        while self._finished and self._size + size > self._memory_bytes:
            self._forget(next(iter(self._finished)))
        # An event without a picture is never refused: every job must be able to end.
        if size and self._size + size > self._memory_bytes:
            raise UnavailableError("The server holds as many pictures as it may")

    def _forget(self, task_id: str) -> None:
        job = self._finished.pop(task_id)
        del self._jobs[task_id]
        self._size -= job.size
        if job.expiry is not None:
            job.expiry.cancel()


def _event_size(event: JobEvent | None) -> int:
    return 0 if event is None else EVENT_BYTES + len(event.preview)
