"""Owns writing the log of a job that this process holds."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from frontend.errors import BackendError, JobNotFoundError
from frontend.jobs.rules import follow_up

if TYPE_CHECKING:
    from frontend.dispatch.patience import Patience
    from frontend.domain.edits import EditResult
    from frontend.domain.jobs import JobEvent, JobStatus
    from frontend.jobs.store import Claim, JobStore

# A job has at most 100 steps and a few stages, twice: only a faulty model has more to say.
MAX_EVENTS = 1024


class ClaimLostError(Exception):
    """The job is not this process's any more: nothing more can be written."""


class JobLog:
    """Adds to the log of a claimed job.

    Args:
        store: where the log lives.
        claim: the hold on the job.
        patience: with a store that is away; later events wait behind the one that is written.
    """

    def __init__(self, store: JobStore, claim: Claim, patience: Patience) -> None:
        self._store = store
        self._claim = claim
        self._patience = patience
        self._seq, self._last = claim.last
        # Of two writers one would take the other's number.
        self._writing = asyncio.Lock()

    @property
    def claim(self) -> Claim:
        """The hold on the job."""
        return self._claim

    @property
    def writing(self) -> bool:
        """Whether an event is on its way, or waits for a store that is away."""
        return self._writing.locked()

    @property
    def status(self) -> JobStatus:
        """That of the last event."""
        return self._last.status

    @property
    def ended(self) -> bool:
        """Whether the final event has been written."""
        return self._last.status.terminal

    async def append(self, event: JobEvent) -> None:
        """Add an event, unless none may follow.

        Raises:
            ClaimLostError: the job is not this process's any more.
            BackendError: the log is longer than a model's log can be.
            UnavailableError: the preview does not fit into the store now.
            StoreAwayError: see `Patience.answer`.
        """
        async with self._writing:
            if (accepted := follow_up(self._last, event)) is None:
                return
            if self._seq >= MAX_EVENTS:
                raise BackendError("the model sent more responses than a job has")
            await self._write(accepted)

    async def end(self, event: JobEvent, result: EditResult | None = None) -> bool:
        """Add the final event; return False if the log has one, or gets that of a cancel.

        Raises:
            ClaimLostError: the job is not this process's any more.
            UnavailableError: the result does not fit into the store now.
            StoreAwayError: see `Patience.answer`.
        """
        async with self._writing:
            if (accepted := follow_up(self._last, event)) is None:
                return False
            try:
                await self._write(accepted, result)
            except ClaimLostError:
                with contextlib.suppress(JobNotFoundError):
                    _, last = await self._patience.answer(
                        lambda: self._store.last(self._claim.job_id)
                    )
                    if last.status.terminal:
                        self._last = last  # a client's cancel came before
                        return False
                raise
            return True

    async def _write(self, event: JobEvent, result: EditResult | None = None) -> None:
        seq = self._seq + 1
        await self._patience.answer(lambda: self._write_once(seq, event, result))
        self._seq, self._last = seq, event

    async def _write_once(self, seq: int, event: JobEvent, result: EditResult | None) -> None:
        try:
            if event.status.terminal:
                written = await self._store.end(self._claim, seq, event, result)
            else:
                written = await self._store.append(self._claim, seq, event)
            # An answer may have been lost: then the number has this very content.
            if written or (seq, event) in await self._store.read(self._claim.job_id, seq - 1):
                return
        except JobNotFoundError:
            pass  # a database that failed over may have lost what it had last
        raise ClaimLostError(self._claim.job_id)
