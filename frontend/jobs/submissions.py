"""Owns accepting edits and cancelling them; nothing here knows what runs them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from frontend.domain.jobs import JobEvent, JobStatus
from frontend.domain.owners import price
from frontend.errors import ClosingError, JobNotFoundError, StoreAwayError
from frontend.jobs.store import MAX_ATTEMPTS, NewJob
from frontend.shares import Budgets

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from frontend.domain.edits import EditParams, Size
    from frontend.domain.owners import Owner
    from frontend.jobs.board import Board
    from frontend.jobs.store import JobStore, Key

log = structlog.get_logger()

LATE_S = 30.0
"""A transaction that was given up has come through after so long, or never does."""
LATE_ROUND_S = 1.0
MAX_LATE = 64
"""At a time. More are told so too, and a few of them may run for nobody."""


class Submitted(NamedTuple):
    """A job that is in the store."""

    job_id: str
    event: JobEvent
    """How it stands, or stood when it came."""


class Submissions:
    """Puts edits into the store, from where whoever runs jobs takes them.

    Args:
        store: where every job's state lives.
        board: how the Tritons and the waiting jobs stand.
    """

    def __init__(self, store: JobStore, board: Board) -> None:
        self._store = store
        self._board = board
        self._budgets = Budgets(time.monotonic)
        self._late: set[asyncio.Task[None]] = set()

    async def admit(self, owner: Owner, task_type: str) -> None:
        """Check that an edit would be accepted now, before any work is put into it.

        Raises:
            UnavailableError: Triton is down, the queue is full, or the server is stopping.
            TooMuchError: the owner has as many jobs waiting, or has had as many, as it may.
            UnsupportedError: the loaded bundle cannot run `task_type`.
        """
        await self._board.look()
        self._board.require_adapter(task_type)
        self._board.check(owner)
        self._budgets.check(owner)

    async def submit(
        self,
        owner: Owner,
        params: EditParams,
        original: bytes,
        size: Size | None,
        *,
        key: Key | None = None,
        retry: bool = True,
    ) -> Submitted:
        """Queue an edit.

        Once the job is in the store nothing more can fail: its client would send it anew.

        Args:
            owner: whose it is.
            params: the edit.
            original: the file that its picture came as.
            size: of the answer, if known.
            key: what the client calls it; one key is one job.
            retry: whether it is begun anew if what runs it is lost.

        Raises:
            InvalidInputError: the key came with another request before.
            UnavailableError: Triton is down, or the queue or the job store is full.
            TooMuchError: the owner has as much waiting, or has had as much, as it may.
            UnsupportedError: the loaded bundle cannot run the task.
        """
        # A second time, because the queue may have filled up while the images were decoded.
        await self.admit(owner, params.task_type)
        steps = params.num_inference_steps
        first = JobEvent(status=JobStatus.QUEUED, total_steps=steps, size=size, at=0)
        job = NewJob(
            job_id=str(uuid.uuid4()),
            params=params,
            original=original,
            event=self._board.outlook(owner, first),
            key=key,
            owner=owner,
            max_attempts=MAX_ATTEMPTS if retry else 1,
        )
        try:
            created = await self._store.create(job)
        except StoreAwayError:
            if key is None:
                self._give_up(job.job_id)
            raise
        if created.job_id != job.job_id:  # the key has one already, and finds it again
            return Submitted(created.job_id, (await self._store.last(created.job_id))[1])
        self._budgets.spend(owner, price(steps, self._board.pixels(size)))
        log.info(
            "job_queued",
            task_id=job.job_id,
            task_type=params.task_type,
            steps=steps,
            owner=owner.name,
        )
        with contextlib.suppress(StoreAwayError, ClosingError):  # the job is there
            await self._board.look()
        return Submitted(job.job_id, job.event)

    async def cancel(
        self, job_id: str
    ) -> tuple[JobStatus, Callable[[], Coroutine[Any, Any, None]]]:
        """Make sure that a job does not start any more.

        A job that has ended stays as it is.

        Returns:
            The job's state, and what brings it to its end. If it has none yet, it will be
            `cancelled`. Answer the client before you call it: the known web
            client takes a stream that ends before the answer to its cancel for a failure.

        Raises:
            JobNotFoundError: no such job.
        """
        status = await self._store.ask_cancel(job_id)
        return status, functools.partial(self._end_cancelled, job_id)

    def _give_up(self, job_id: str) -> None:
        """Cancel a job, if it is there, whose client is told that it was not accepted.

        It will be sent anew.
        """
        if len(self._late) < MAX_LATE:
            task = asyncio.create_task(self._cancel_late(job_id))
            self._late.add(task)
            task.add_done_callback(self._late.discard)

    async def _cancel_late(self, job_id: str) -> None:
        """Cancel a job that comes into the store although its transaction was given up."""
        clock = asyncio.get_running_loop().time
        until = clock() + LATE_S
        while True:
            try:
                await self._store.ask_cancel(job_id)
                await self._end_cancelled(job_id)
                return
            except JobNotFoundError:
                pass
            except StoreAwayError as error:
                log.warning("store_away", task_id=job_id, reason=error.reason)
            except ClosingError:
                return
            if clock() > until:
                return
            await asyncio.sleep(LATE_ROUND_S)

    async def _end_cancelled(self, job_id: str) -> None:
        # The client has its answer, and the cancel is kept: whoever sweeps brings the end.
        try:
            await self._board.end_cancelled(job_id)
        except StoreAwayError as error:
            log.warning("store_away", task_id=job_id, reason=error.reason)
        except ClosingError:
            pass
