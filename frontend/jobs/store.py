"""Owns the protocol of a store of jobs: their queue, logs, inputs and results.

A store keeps one log per job, and the log obeys `rules.follow_up`. Nothing else holds a job's
state, so any process may die at any moment. These rules hold whatever the store is:

1. A write by a claim that no longer holds the job returns False, or None, and changes nothing.
2. Of any number of ends of one job exactly one wins, and nothing is written afterwards. After
   `ask_cancel` only `cancelled` can win.
3. Entries are numbered from 1 without gaps, and a number never gets another content.
4. A result and its final event appear together or not at all.
5. No two claims return one job with one attempt. A job that is to be cancelled is never claimed.
6. To repeat a call whose answer was lost changes nothing.
7. Bounds hold under concurrent calls of `create`.
8. Claims go to the owners in turn: to the one that had none yet, or whose last is longest ago. Of
   one owner they go in the order of creation. A job that was given back keeps its place, and its
   owner its turn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from frontend.domain.jobs import JobEvent

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Sequence
    from contextlib import AbstractContextManager

    from frontend.domain.edits import EditParams, EditResult
    from frontend.domain.jobs import JobStatus
    from frontend.domain.owners import Owner
    from frontend.domain.tritons import TritonState

# An event and its number in the log, from 1 without gaps.
Entry = tuple[int, JobEvent]

# A larger piece would hold up every other reader while it is read.
_PIECE_BYTES = 2**20

ABSENT_S = 8.0
"""A worker that has not announced itself for so long is not there."""
FORMER_S = 2.0
"""The same for one whose name another worker has: it was started anew."""
MAX_ATTEMPTS = 2
"""Of a job whose Triton or dispatcher is lost: the job itself may be the cause."""


class Listed(NamedTuple):
    """A job in a list of jobs."""

    number: int
    """Its place in the order of creation, from 1; never given again."""
    job_id: str
    task_type: str
    created_at: float
    """Seconds since 1970."""
    last: JobEvent
    """The newest entry."""


class Key(NamedTuple):
    """What a client calls its submission, so that sending it again is the same job."""

    name: str
    """Unique among the kept jobs of one owner."""
    digest: bytes
    """Of the request; the same key must come with the same one."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to create."""

    job_id: str
    params: EditParams
    original: bytes = field(repr=False)
    """The file that its picture came as."""
    event: JobEvent
    """The first entry of its log."""
    owner: Owner
    key: Key | None = None
    max_attempts: int = MAX_ATTEMPTS
    """How often it may be begun in all, if what runs it is lost each time."""


class Waiting(NamedTuple):
    """A job that waits for a worker."""

    number: int
    """See `Listed`."""
    job_id: str
    task_type: str
    owner: str
    """Its owner's name."""
    max_running: int | None
    """Jobs that its owner may have running."""
    last_turn: int
    """The number of its owner's last turn; 0 if it had none."""
    last: JobEvent
    """The newest entry."""


class Running(NamedTuple):
    """A job that a worker holds."""

    job_id: str
    owner: str
    """Its owner's name."""
    worker: str
    turn: int
    """The number of its owner's turn."""
    last: JobEvent
    """The newest entry."""


class Announced(NamedTuple):
    """What a worker said of one of its Tritons."""

    worker: str
    state: TritonState
    age_s: float
    """How long ago, in seconds."""


class View(NamedTuple):
    """The jobs that have not ended and who runs them, all at one moment."""

    waiting: list[Waiting]
    """In the order of their creation."""
    running: list[Running]
    """In the order of their start."""
    tritons: list[Announced]
    """Of the workers that have announced themselves lately."""


class Created(NamedTuple):
    """The answer to `create`."""

    job_id: str
    number: int


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a job; (worker, attempt) fences every write."""

    job_id: str
    number: int
    worker: str
    attempt: int
    task_type: str
    owner: str
    """Its owner's name."""
    max_running: int | None
    """See `Waiting`."""
    turn: int
    """The number of its owner's turn."""
    last: Entry
    """The newest entry when the job was claimed."""

    @property
    def request_id(self) -> str:
        """What Triton calls the job: an attempt before may still be ending there."""
        return f"{self.job_id}.{self.attempt}"


class Held(NamedTuple):
    """A job that a worker holds."""

    job_id: str
    attempt: int
    cancel_asked: bool
    """Whether a client wants it to end."""


class Freed(NamedTuple):
    """A job that a worker held, and that it has lost or given back."""

    job_id: str
    task_type: str
    end: JobEvent | None
    """What has ended it, because it may not be begun anew; None: it waits again."""


@dataclass(frozen=True)
class StoredBlob:
    """Bytes of a job that are read piece by piece."""

    store: JobStore
    job_id: str
    name: str
    """`original`, or a result's `image` or `info`."""

    async def size(self) -> int:
        """Return how many there are; see `JobStore.size_of`."""
        return await self.store.size_of(self.job_id, self.name)

    async def piece(self, at: int, count: int) -> bytes:
        """Return some of them; see `JobStore.piece_of`."""
        return await self.store.piece_of(self.job_id, self.name, at, count)

    async def whole(self) -> bytes:
        """Return all of them."""
        read = bytearray()
        while piece := await self.piece(len(read), _PIECE_BYTES):
            read += piece
        return bytes(read)


class JobStore(Protocol):
    """All jobs. Every method that takes a job_id raises JobNotFoundError for an unknown one.

    Every method raises StoreAwayError while the store cannot be reached.
    """

    # --- for clients; in any process ---

    async def create(self, job: NewJob) -> Created:
        """Add a job, or return the one that its key has created.

        Raises:
            UnavailableError: too many jobs wait, or the job's images do not fit now.
            TooMuchError: too many jobs of this owner wait, or take too much.
            InvalidInputError: the key came with another request before.
        """

    async def keyed(self, owner: str, key: Key) -> str | None:
        """Return the job that `key` has created; None if there is none.

        Raises:
            InvalidInputError: the key came with another request before.
        """

    async def read(self, job_id: str, after: int = 0, wait_s: float = 0) -> list[Entry]:
        """Return the entries numbered above `after`, oldest first.

        If there are none yet, wait for the first, at most `wait_s` seconds.

        Raises:
            ClosingError: the store was closed.
        """

    async def last(self, job_id: str) -> Entry:
        """Return the newest entry."""

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

    async def size_of(self, job_id: str, name: str) -> int:
        """Return the bytes of a blob.

        Args:
            job_id: the job.
            name: `original`, the picture that it edits as the client sent it; or, of a job that is
                done, its result's `image` or `info`.
        """

    async def piece_of(self, job_id: str, name: str, at: int, count: int) -> bytes:
        """Return at most `count` bytes from `at` on of what `size_of` tells the size of."""

    async def ask_cancel(self, job_id: str) -> JobStatus:
        """Make sure that no worker claims the job from now on; return the job's state."""

    async def end_waiting(self, job_id: str, status: JobStatus, error: str) -> bool:
        """End a job that no worker holds with `error` or `cancelled`; return whether it did."""

    async def view(self) -> View:
        """Return the jobs that have not ended, and the workers."""

    def changes(self) -> AbstractContextManager[asyncio.Event]:
        """Give an event that is set when `view` may have changed; see `work`."""

    # --- for a dispatcher ---

    async def announce(self, worker: str, states: Sequence[TritonState]) -> None:
        """Tell how the Tritons of a worker stand; that holds for ABSENT_S seconds."""

    async def depart(self, worker: str) -> None:
        """Forget what a worker has announced, because it ends."""

    async def take_back(self, name: str, worker: str) -> list[Freed]:
        """Forget the former workers of a name, and let their jobs wait again; return these.

        Each counts as lost. What a worker holds that has announced itself lately is let alone: two
        may share a name by mistake.

        Args:
            name: what the ids of all these workers begin with.
            worker: the one that has the name now.
        """

    async def claim(self, worker: str, task_types: Collection[str], lease_s: float) -> Claim | None:
        """Take the next waiting job of these kinds, see rule 8; None if there is none.

        An owner that has as many jobs running as it may loses its turn.

        Args:
            worker: who takes it.
            task_types: what it can run.
            lease_s: seconds until others may take the job away, unless `renew` comes.
        """

    async def params(self, job_id: str) -> EditParams:
        """Return the edit that the job was created with.

        Raises:
            LookupError: the job has ended.
        """

    async def append(self, claim: Claim, seq: int, event: JobEvent) -> bool:
        """Add `event` to the log under the number `seq`.

        Args:
            claim: what holds the job.
            seq: one more than the newest entry's number.
            event: what `follow_up` returned for it.

        Raises:
            UnavailableError: the preview does not fit into the store now.
        """

    async def end(
        self, claim: Claim, seq: int, event: JobEvent, result: EditResult | None = None
    ) -> bool:
        """Add the final event, and the result beside it if the job is done; see `append`.

        A job that `ask_cancel` came for before ends as cancelled instead, and this returns False.
        """

    async def give_back(self, claim: Claim, lost: str | None = None) -> Freed | None:
        """Let the job wait again; return None if the claim does not hold it any more.

        Args:
            claim: what holds the job.
            lost: why the attempt counts as one; the job ends with this error if it was the last
                one. None: it does not count.
        """

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> list[Held]:
        """Lengthen the leases of those claims that still hold their jobs, and return these.

        Of these alone: a job that its worker has given up must not stay that worker's.
        """

    # --- for whoever sweeps ---

    async def beat(self, late_s: float) -> float:
        """Write what renewals would, and return when: by the store's clock, in seconds since 1970.

        That works only when `renew` does. A store may be read while nobody can write to it, and on
        a disk that is full some rows may still be written and others not.

        Args:
            late_s: leases that end within so many seconds are late: their rows are written.
        """

    async def reap(self, at: float) -> list[Freed]:
        """Let the jobs wait again whose lease was over, as `give_back` does; return them.

        Args:
            at: when it was, as `beat` has returned it. If the store goes away before this call has
                come through, the leases that end meanwhile are not over.
        """

    async def sweep(self) -> None:
        """Forget what has expired, and end waiting jobs whose cancel nobody has finished."""

    def work(self) -> AbstractContextManager[asyncio.Event]:
        """Give an event that is set when a job may have begun to wait.

        That is a hint: it may come too often, and of what another process does not at all.
        """

    def cancels(self) -> AbstractContextManager[asyncio.Event]:
        """Give an event that is set when a job that a worker holds is to end; see `work`."""

    async def close(self) -> None:
        """Finish what was begun; those who wait get a ClosingError."""
