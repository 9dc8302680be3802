"""Owns the store of jobs that lives in this process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frontend.errors import JobNotFoundError, TooMuchError, UnavailableError
from frontend.jobs.rules import follow_up
from frontend.jobs.store import Listed

if TYPE_CHECKING:
    from collections.abc import Collection

    from frontend.domain.edits import EditParams, EditResult
    from frontend.domain.jobs import JobEvent, JobStatus
    from frontend.domain.owners import Owner
    from frontend.jobs.store import Entry

# Maximum number of entries in one log. A job has at most 100 steps, a few stages and one entry for
# each of at most 512 places in the queue. So only a faulty model loses its oldest entries.
MAX_EVENTS = 1024
# Estimated memory of an entry without its preview.
EVENT_BYTES = 1024


@dataclass(eq=False)
class _Job:
    number: int
    events: deque[JobEvent]
    params: EditParams | None
    original: bytes
    task_type: str
    first: JobEvent
    owner: str
    size: int = 0
    """Bytes of the images still needed, the log and the result."""
    appended: int = 1
    result: EditResult | None = None
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced by a new one, with every entry."""
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
        memory_bytes: maximum bytes to hold; unfinished jobs may take half. If more is needed, the
            owner of the most loses the jobs that finished first.
        ttl_s: seconds that a finished job is kept.
    """

    def __init__(self, memory_bytes: int, ttl_s: float) -> None:
        self._memory_bytes = memory_bytes
        self._ttl_s = ttl_s
        # In the order of their creation.
        self._jobs: dict[str, _Job] = {}
        self._numbers = itertools.count(1)
        # In the order of their ends.
        self._finished: dict[str, _Job] = {}
        # By owner.
        self._sizes: Counter[str] = Counter()
        self._unfinished_sizes: Counter[str] = Counter()

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._sizes.total()

    async def create(
        self, job_id: str, params: EditParams, original: bytes, event: JobEvent, owner: Owner
    ) -> None:
        """See JobStore."""
        size = params.image_bytes + len(original) + EVENT_BYTES
        if self._unfinished_sizes.total() + size > self._memory_bytes // 2:
            raise UnavailableError("The server holds as many images of waiting jobs as it may")
        if self._unfinished_sizes[owner.name] + size > (most := owner.limits.max_bytes):
            raise TooMuchError(f"This client has as many bytes in waiting jobs as one may: {most}")
        self._make_space(size, owner.name)
        log = deque([event], MAX_EVENTS)
        number = next(self._numbers)
        job = _Job(number, log, params, original, params.task_type, event, owner.name)
        self._jobs[job_id] = job
        self._resize(job, size)

    async def append(self, job_id: str, event: JobEvent, result: EditResult | None = None) -> bool:
        """See JobStore."""
        job = self._find(job_id)
        if (accepted := follow_up(job.last, event)) is None:
            return False
        result_size = len(result.image) + len(result.info) if result else 0
        self._make_space(len(event.preview) + result_size, job.owner)
        dropped = job.events[0] if len(job.events) == MAX_EVENTS else None
        job.events.append(accepted)
        job.appended += 1
        job.result = result
        self._resize(job, _event_size(accepted) + result_size - _event_size(dropped))
        if accepted.status.terminal:
            await self.release(job_id)
            self._unfinished_sizes[job.owner] -= job.size
            self._finished[job_id] = job
            loop = asyncio.get_running_loop()
            job.expiry = loop.call_later(self._ttl_s, self._forget, job_id)
        job.grown.set()
        job.grown = asyncio.Event()
        return True

    async def read(self, job_id: str, after: int = 0, wait_s: float = 0) -> list[Entry]:
        """See JobStore."""
        job = self._find(job_id)
        if not (entries := job.after(after)) and wait_s > 0 and not job.last.status.terminal:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await job.grown.wait()
            entries = job.after(after)
        return entries

    async def last(self, job_id: str) -> Entry:
        """See JobStore."""
        job = self._find(job_id)
        return job.appended, job.last

    async def params(self, job_id: str) -> EditParams:
        """See JobStore."""
        if (params := self._find(job_id).params) is None:
            raise LookupError(f"the inputs of {job_id} were released")
        return params

    async def release(self, job_id: str) -> None:
        """See JobStore."""
        job = self._find(job_id)
        if job.params is not None:
            self._resize(job, -job.params.image_bytes)
            job.params = None

    async def owner(self, job_id: str) -> str:
        """See JobStore."""
        return self._find(job_id).owner

    async def newest(
        self,
        owner: str,
        limit: int,
        before: int | None = None,
        statuses: Collection[JobStatus] = (),
    ) -> list[Listed]:
        """See JobStore."""
        found = (
            Listed(job.number, job_id, job.task_type, job.first, job.last)
            for job_id, job in reversed(self._jobs.items())
            if job.owner == owner
            and (before is None or job.number < before)
            and (not statuses or job.last.status in statuses)
        )
        return list(itertools.islice(found, limit))

    async def original(self, job_id: str) -> bytes:
        """See JobStore."""
        return self._find(job_id).original

    async def result(self, job_id: str) -> EditResult | None:
        """See JobStore."""
        return self._find(job_id).result

    def _find(self, job_id: str) -> _Job:
        try:
            return self._jobs[job_id]
        except KeyError:
            raise JobNotFoundError(job_id) from None

    def _resize(self, job: _Job, by: int) -> None:
        job.size += by
        self._sizes[job.owner] += by
        self._unfinished_sizes[job.owner] += by

    def _make_space(self, size: int, owner: str) -> None:
        """Forget finished jobs, those of the owner who holds the most first, `size` included."""
        while self._finished and self.size + size > self._memory_bytes:
            largest = max(
                {job.owner for job in self._finished.values()},
                key=lambda each: self._sizes[each] + size * (each == owner),
            )
            self._forget(next(i for i, job in self._finished.items() if job.owner == largest))
        # An event without a picture is always accepted, because every job must be able to end.
        if size and self.size + size > self._memory_bytes:
            raise UnavailableError("The server holds as many pictures as it may")

    def _forget(self, job_id: str) -> None:
        job = self._finished.pop(job_id)
        del self._jobs[job_id]
        self._sizes[job.owner] -= job.size
        if not self._sizes[job.owner]:
            del self._sizes[job.owner], self._unfinished_sizes[job.owner]
        if job.expiry is not None:
            job.expiry.cancel()


def _event_size(event: JobEvent | None) -> int:
    return 0 if event is None else EVENT_BYTES + len(event.preview)
