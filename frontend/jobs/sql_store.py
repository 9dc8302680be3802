"""Owns the store of jobs in a SQL database."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from frontend.domain.jobs import JobStatus
from frontend.errors import (
    ClosingError,
    JobNotFoundError,
    ServingError,
    StoreAwayError,
)
from frontend.jobs import rules, transactions
from frontend.jobs.blobs import PART_BYTES, check_disk, parts
from frontend.jobs.driver import no_topics
from frontend.jobs.records import params_of, pictures_of
from frontend.jobs.statements import row, rows
from frontend.jobs.sweeping import Orphans, Piece, sweep
from frontend.waiting import set_within

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    from frontend.domain.edits import EditParams, EditResult
    from frontend.domain.jobs import JobEvent
    from frontend.domain.tritons import TritonState
    from frontend.jobs.driver import Driver, Topics
    from frontend.jobs.statements import Steps
    from frontend.jobs.store import (
        Claim,
        Created,
        Entry,
        Freed,
        Held,
        Key,
        Listed,
        NewJob,
        View,
    )
    from frontend.jobs.transactions import Bounds

T = TypeVar("T")

LOOK_S = 1.0
"""Who waits looks so often at what another process may have written."""
LOST_TEXT = (
    "500: what ran the job was lost, and it is not begun anew: submit it again. If that ends so "
    "too, the job itself may be the cause, and Triton's log says more"
)
_BEAT = "beat:"
# Topics; the others are job ids.
_STANDING = {_WORK := "work", _CHANGES := "changes", _CANCELS := "cancels"}


class SqlStore:
    """A JobStore over a driver.

    Args:
        driver: the database.
        bounds: what the store may hold; the jobs that finished first make space.
        ttl_s: seconds that a finished job is kept.
    """

    def __init__(self, driver: Driver, bounds: Bounds, ttl_s: float) -> None:
        self._driver = driver
        self._bounds = bounds
        self._ttl_s = ttl_s
        self._listeners: dict[str, set[asyncio.Event]] = {}
        # Reads that have begun, by job and number.
        self._reading: dict[str, dict[int, asyncio.Future[tuple[list[Entry], bool]]]] = {}
        self._followers = 0
        self._holds = False
        self._hearers: dict[str, Callable[[str], None]] = {}
        self._orphans = Orphans(driver, "old_blobs")
        self._closing = False
        driver.listen(self._wake, lambda: self._followers > 0 or self._holds)

    @property
    def driver(self) -> Driver:
        """The database; what else lies in it needs it too."""
        return self._driver

    # --- for clients ---

    async def create(self, job: NewJob) -> Created:
        """See JobStore."""
        pictures = pictures_of(job.params)
        size = sum(len(data) for data in pictures.values())
        # Before anything is written; looked at again together with the row.
        before = await self._driver.read(transactions.look(job, self._bounds, size))
        if before is not None:
            return before
        await check_disk(self._driver, size + len(job.original))
        await self._put(job.job_id, "original", job.original)
        for name, data in pictures.items():
            await self._put(job.job_id, f"input/{name}", data)
        try:
            created = await self._write_with_space(
                lambda: transactions.create(job, self._bounds, size), _always(_WORK, _CHANGES)
            )
        except StoreAwayError:
            raise  # the row may be there; if it is not, a sweep takes the pictures
        except ServingError:
            await self._drop(job.job_id)
            raise
        if created.job_id != job.job_id:
            await self._drop(job.job_id)
        return created

    async def keyed(self, owner: str, key: Key) -> str | None:
        """See JobStore."""
        found = await self._driver.read(transactions.keyed(owner, key))
        return found["task_id"] if found is not None else None

    async def read(self, job_id: str, after: int = 0, wait_s: float = 0) -> list[Entry]:
        """See JobStore."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            with self._listening(job_id) as woken:
                entries, ended = await self._read_once(job_id, after)
                left_s = until - loop.time()
                if entries or ended or left_s <= 0:
                    return entries
                await set_within(woken, min(left_s, LOOK_S))

    async def _read_once(self, job_id: str, after: int) -> tuple[list[Entry], bool]:
        """Read for all who want the same now: hundreds may follow one job."""
        reading = self._reading.setdefault(job_id, {})
        if (future := reading.get(after)) is None:
            future = reading[after] = self._driver.read(transactions.read(job_id, after))
            future.add_done_callback(lambda _: self._read_again(job_id, after, future))
        return await asyncio.shield(future)

    def _read_again(self, job_id: str, after: int, done: asyncio.Future[Any]) -> None:
        reading = self._reading.get(job_id, {})
        if reading.get(after) is done:
            del reading[after]
            if not reading:
                del self._reading[job_id]

    async def last(self, job_id: str) -> Entry:
        """See JobStore."""
        return await self._driver.read(transactions.last(job_id))

    async def owner(self, job_id: str) -> str:
        """See JobStore."""
        return str((await self._driver.read(transactions.job(job_id)))["owner"])

    async def newest(
        self,
        owner: str,
        limit: int,
        before: int | None = None,
        statuses: Collection[JobStatus] = (),
    ) -> list[Listed]:
        """See JobStore."""
        return await self._driver.read(transactions.newest(owner, limit, before, statuses))

    async def size_of(self, job_id: str, name: str) -> int:
        """See JobStore."""
        return await self._driver.read(transactions.size_of(job_id, name))

    async def piece_of(self, job_id: str, name: str, at: int, count: int) -> bytes:
        """See JobStore."""
        part, start = divmod(at, PART_BYTES)
        count = min(count, PART_BYTES - start)
        return await self._driver.read(transactions.piece_of(job_id, name, part, start, count))

    async def ask_cancel(self, job_id: str) -> JobStatus:
        """See JobStore."""
        return await self._write(transactions.ask_cancel(job_id))

    async def end_waiting(self, job_id: str, status: JobStatus, error: str) -> bool:
        """See JobStore."""
        return await self._write(
            transactions.end_waiting(job_id, status, error),
            lambda ended: (job_id, _CHANGES) if ended else (_CANCELS,),
        )

    async def view(self) -> View:
        """See JobStore."""
        return await self._driver.read(transactions.view())

    def changes(self) -> AbstractContextManager[asyncio.Event]:
        """See JobStore."""
        return self._listening(_CHANGES)

    # --- for a dispatcher ---

    async def announce(self, worker: str, states: Sequence[TritonState]) -> None:
        """See JobStore."""
        # Not waiting for the disk: an idle server does this each second.
        steps = transactions.announce(worker, states)
        await self._write(steps, _always(_CHANGES), lasts=False)

    async def depart(self, worker: str) -> None:
        """See JobStore."""
        await self._write(transactions.depart(worker), _always(_CHANGES), lasts=False)

    async def take_back(self, name: str, worker: str) -> list[Freed]:
        """See JobStore."""
        if not await self._driver.read(rows("of_former", name, worker)):
            return []
        return await self._write(transactions.take_back(name, worker, LOST_TEXT), _freed)

    async def claim(self, worker: str, task_types: Collection[str], lease_s: float) -> Claim | None:
        """See JobStore."""
        claim = await self._write(
            transactions.claim(worker, task_types, lease_s),
            lambda claim: (_CHANGES,) if claim else (),
        )
        self._holds |= claim is not None
        return claim

    async def params(self, job_id: str) -> EditParams:
        """See JobStore."""
        if (found := await self._driver.read(transactions.inputs(job_id))) is None:
            raise LookupError(f"{job_id} has ended")
        data, names = found
        return params_of(data, {name: await self._blob(job_id, f"input/{name}") for name in names})

    async def append(self, claim: Claim, seq: int, event: JobEvent) -> bool:
        """See JobStore."""
        return await self._write_with_space(
            lambda: transactions.append(claim, seq, event, self._bounds), _always(claim.job_id)
        )

    async def end(
        self, claim: Claim, seq: int, event: JobEvent, result: EditResult | None = None
    ) -> bool:
        """See JobStore."""
        size = len(result.image) + len(result.info) if result else 0
        try:
            if result is not None:
                await self._put(claim.job_id, f"{claim.attempt}/image", result.image)
                await self._put(claim.job_id, f"{claim.attempt}/info", result.info)
            ended = await self._write_with_space(
                lambda: transactions.end(claim, seq, event, size, self._bounds),
                _always(claim.job_id, _WORK, _CHANGES),
            )
        except StoreAwayError:
            raise  # it may still come through, or is repeated: either needs the parts
        except ServingError:
            if result is not None:
                await self._drop_result(claim)
            raise
        if result is not None and not ended:
            await self._drop_result(claim)
        return ended

    async def give_back(self, claim: Claim, lost: str | None = None) -> Freed | None:
        """See JobStore."""
        steps = transactions.give_back(claim, lost)
        return await self._write(steps, _always(claim.job_id, _WORK, _CHANGES))

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> list[Held]:
        """See JobStore."""
        self._holds = bool(claims)
        # Every second of an idle server, too.
        return await self._write(transactions.renew(claims, lease_s)) if claims else []

    # --- for whoever sweeps ---

    async def beat(self, late_s: float) -> float:
        """See JobStore."""
        # With a topic, which SQLite leaves in the file: a full disk must not pass for a good one.
        return await self._driver.write_part(transactions.beat(late_s), _always(_BEAT))

    async def reap(self, at: float) -> list[Freed]:
        """See JobStore."""
        if not await self._driver.read(rows("overdue", at, transactions.LONGEST_LEASE_S)):
            return []
        return await self._write(transactions.reap(at, LOST_TEXT), _freed)

    async def sweep(self) -> None:
        """See JobStore."""
        for job_id in await self._driver.read(transactions.stale_cancels()):
            with contextlib.suppress(JobNotFoundError):
                await self.end_waiting(job_id, JobStatus.CANCELLED, rules.CANCELLED_TEXT)
        pieces = (self._forget_expired, self._forget_excess, self._forget_orphans)
        gone = [await sweep(piece) for piece in pieces]
        await self._driver.shrink(freed=any(gone))

    async def _forget_expired(self) -> Piece:
        if found := await self._driver.read(transactions.expired(self._ttl_s)):
            await self._write(transactions.forget(found), _always(*found))
        return Piece(bool(found), len(found) == transactions.FORGET_AT_ONCE)

    async def _forget_excess(self) -> Piece:
        """Keep to a bound that was lowered since: the disk may be full, so that no job comes."""
        if not await self._driver.read(transactions.exceeds(self._bounds)):
            return Piece(gone=False, more=False)
        return Piece(gone=True, more=not await self._write(transactions.trim(self._bounds)))

    async def _forget_orphans(self) -> Piece:
        lost, more = await self._orphans.look()
        if lost:
            await self._write(transactions.forget(lost))
        return Piece(bool(lost), more)

    def work(self) -> AbstractContextManager[asyncio.Event]:
        """See JobStore."""
        return self._listening(_WORK)

    def cancels(self) -> AbstractContextManager[asyncio.Event]:
        """See JobStore."""
        return self._listening(_CANCELS)

    async def tell(self, kind: str, text: str) -> None:
        """Tell other processes something that is no job's; a hint, as all are.

        Args:
            kind: who is to hear it, see `hear`.
            text: at most 7,000 bytes in UTF-8, without a NUL.

        Raises:
            StoreAwayError: it cannot be told now.
        """
        await self._driver.write_part(_nothing(), _always(kind + text))

    def hear(self, kind: str, heard: Callable[[str], None]) -> None:
        """Call `heard` with what other processes tell of this kind, which ends with a colon."""
        self._hearers[kind] = heard

    async def close(self) -> None:
        """See JobStore."""
        self._closing = True
        self._wake(*self._listeners)
        await self._driver.close()

    # --- blobs: parts before the row that makes them count ---

    async def _put(self, job_id: str, name: str, data: bytes) -> None:
        for part, piece in parts(data):
            await self._driver.write_part(rows("put_part", job_id, name, part, piece))

    async def _blob(self, job_id: str, name: str) -> bytes:
        data = bytearray()
        # One by one: a reader of all would hold up every other one, and a slow network would not
        # bring all in the time that a transaction has.
        while len(data) % PART_BYTES == 0:
            part = len(data) // PART_BYTES
            found = await self._driver.read(row("piece", job_id, name, part, 1, PART_BYTES))
            if found is None:
                break
            data += found["data"]
        return bytes(data)

    async def _drop(self, job_id: str) -> None:
        """Delete what was put for a job that has not come."""
        with contextlib.suppress(ServingError):
            await self._driver.write_part(transactions.drop_unborn(job_id))

    async def _drop_result(self, claim: Claim) -> None:
        """Delete what was put for an end that was refused."""
        with contextlib.suppress(ServingError):
            await self._driver.write_part(transactions.drop_result(claim))

    # --- wake-ups: hints, which a process that dies may not give ---

    async def _write(
        self, steps: Steps[T], topics: Topics[T] = no_topics, *, lasts: bool = True
    ) -> T:
        write = self._driver.write if lasts else self._driver.write_part
        future = write(steps, topics)

        def wake(done: asyncio.Future[T]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._wake(*topics(done.result()))

        future.add_done_callback(wake)
        # It goes on without its caller, and must wake whom it concerns.
        return await asyncio.shield(future)

    async def _write_with_space(
        self, steps: Callable[[], Steps[T | None]], topics: Topics[T | None]
    ) -> T:
        """Run a transaction until it has made the space that it needs, see `make_space`."""
        while (outcome := await self._write(steps(), topics)) is None:
            pass
        return outcome

    @contextlib.contextmanager
    def _listening(self, topic: str) -> Iterator[asyncio.Event]:
        if self._closing:
            raise ClosingError()
        woken = asyncio.Event()
        listeners = self._listeners.setdefault(topic, set())
        listeners.add(woken)
        self._followers += topic not in _STANDING
        try:
            yield woken
        finally:
            self._followers -= topic not in _STANDING
            listeners.discard(woken)
            if not listeners and self._listeners.get(topic) is listeners:
                del self._listeners[topic]

    def _wake(self, *topics: str) -> None:
        for topic in topics:
            kind, colon, text = topic.partition(":")
            if heard := self._hearers.get(kind + colon):
                heard(text)
            # What has begun may not see what was just written.
            self._reading.pop(topic, None)
            for woken in self._listeners.get(topic, ()):
                woken.set()


def _always(*topics: str) -> Callable[[object], Sequence[str]]:
    """Return what names these topics whatever the outcome is."""
    return lambda _: topics


def _freed(jobs: list[Freed]) -> Sequence[str]:
    """Return whom it concerns that jobs were freed."""
    return (*(job.job_id for job in jobs), _WORK, _CHANGES) if jobs else ()


def _nothing() -> Steps[None]:
    yield from ()
