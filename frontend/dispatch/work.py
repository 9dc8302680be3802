"""Owns the way of one job through Triton to its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import structlog

from frontend import loop_time
from frontend.dispatch.job_log import ClaimLostError
from frontend.domain.edits import EditResult, Stage
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.errors import (
    BackendError,
    ClosingError,
    InvalidInputError,
    ModelCancelledError,
    ServingError,
    SharedMemoryFullError,
    StoreAwayError,
    TritonDownError,
    TritonStoppingError,
    UnavailableError,
)
from frontend.jobs.ends import log_end, log_freed
from frontend.jobs.rules import CANCELLED_TEXT
from frontend.jobs.schedule import known
from frontend.triton.edit_tensors import edit_update, in_field_names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from frontend.dispatch.lanes import Lane, Lanes, LiveJob
    from frontend.dispatch.patience import Patience
    from frontend.domain.edits import EditParams, EditProgress
    from frontend.domain.models import EditModelState
    from frontend.jobs.store import Claim, JobStore
    from frontend.settings import Settings
    from frontend.triton.watch import TritonWatch

log = structlog.get_logger()


class Work:
    """Runs claimed jobs on the lanes that they were started on.

    Args:
        settings: times.
        store: where every job's state lives.
        lanes: the engines and their jobs.
        watches: the Triton of each lane.
        patience: with a store that is away.
        left: called after a job has left its lane.
        tell: tells others that a Triton is down.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        lanes: Lanes,
        watches: Mapping[Lane, TritonWatch[EditModelState]],
        patience: Patience,
        clock: Callable[[], float],
        running_clock: Callable[[], float],
        left: Callable[[], object],
        tell: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._store = store
        self._lanes = lanes
        self._watches = watches
        self._patience = patience
        self._clock = clock
        self._running_clock = running_clock
        self._left = left
        self._tell = tell

    def watch_of(self, job: LiveJob) -> TritonWatch[EditModelState]:
        """Return the watch over the Triton that a job runs on."""
        assert job.lane is not None, "it has not started"
        return self._watches[job.lane]

    async def run(self, job: LiveJob, claim: Claim) -> None:
        """Take a started job to its end, or give it back."""
        with structlog.contextvars.bound_contextvars(task_id=job.job_id):
            try:
                await self._drive(job, claim)
            except ClaimLostError:
                await self.abandon(job)
            except StoreAwayError as error:
                # Its lease will be over, and then it waits again.
                log.warning("store_away", reason=error.reason)
            finally:
                self._lanes.leave(job)
                self._left()

    async def _drive(self, job: LiveJob, claim: Claim) -> None:
        """Follow a job, and decide what its failure means."""
        try:
            await self._follow(job)
        except ServingError as error:
            if isinstance(error, TritonDownError):
                self.watch_of(job).mark_down(error)
                await self._tell()  # who hears of the job's end must not believe it up
            if job.lost:
                return
            if isinstance(error, StoreAwayError):
                raise  # this process stops, and the store would not be told of an end either
            if isinstance(job.end_reason, ClosingError):
                await self._give_back(job, claim, job.end_reason)
            elif job.end_reason is not None:
                await self._fail(job, job.end_reason)
            elif isinstance(error, TritonStoppingError) and not job.accepted.is_set():
                await self._give_back(job, claim, error)
            elif isinstance(error, TritonDownError):
                await self._give_back(job, claim, error, lost=error.job_error)
            elif isinstance(error, UnavailableError) and self._waits_for_others(job, error):
                await self._give_back(job, claim, error)
            else:
                await self._fail(job, error)
        except ClaimLostError:
            raise
        except Exception:
            log.exception("job_crashed")
            await self._fail(job, BackendError("The server failed"))

    def _waits_for_others(self, job: LiveJob, error: UnavailableError) -> bool:
        """Return whether a job that Triton has refused may run once others have ended there."""
        lane = job.lane
        assert lane is not None, "it has started"
        if job.accepted.is_set():
            return False
        if isinstance(error, SharedMemoryFullError):
            # It is sent again once it is alone. If it does not fit then, it never will.
            lane.alone = not job.alone
            return lane.alone
        lane.full = True
        return True

    async def _give_back(
        self, job: LiveJob, claim: Claim, reason: ServingError, *, lost: str | None = None
    ) -> None:
        """Let a job wait again; see `JobStore.give_back` for `lost`."""
        job.leaving = True
        log.info("job_returned", reason=reason.detail, counted=lost is not None)
        freed = await self._patience.answer(lambda: self._store.give_back(claim, lost))
        if freed is not None:
            log_freed(freed)

    async def abandon(self, job: LiveJob) -> None:
        """Stop the work on a job that another process may have begun anew."""
        log.warning("claim_lost", task_id=job.job_id)
        job.lost = True
        job.ending.set()
        with contextlib.suppress(TimeoutError, ServingError):
            async with loop_time.timeout(self._settings.cancel_timeout_s):
                await self.watch_of(job).client.cancel_edit(job.request_id)
        if job.stream is not None:
            job.stream.cut(_taken())

    async def _follow(self, job: LiveJob) -> None:
        """Log the model's responses until its stream ends."""
        done = False
        params = await self._params(job)
        job.heard_at = self._running_clock()
        job.stream = self.watch_of(job).client.edit(job.request_id, params)
        async with contextlib.aclosing(job.stream.responses()) as responses:
            async for response in responses:
                self.watch_of(job).note_answer()
                update = edit_update(response)
                if isinstance(update, EditResult):
                    await self._finish(job, update)
                    done = True
                else:
                    await self._advance(job, update)
        if not done:
            raise BackendError("the model ended the job without a result")

    async def _params(self, job: LiveJob) -> EditParams:
        """Read the edit from the store, unless the job is to end meanwhile."""
        answer = self._patience.answer(lambda: self._store.params(job.job_id))
        reading, ending = asyncio.create_task(answer), asyncio.create_task(job.ending.wait())
        # Else asyncio complains of an error that came together with the job's end.
        reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            await asyncio.wait([reading, ending], return_when=asyncio.FIRST_COMPLETED)
            if job.ending.is_set():
                raise job.end_reason or _taken()
            return reading.result()
        finally:
            reading.cancel()
            ending.cancel()

    async def _advance(self, job: LiveJob, update: EditProgress) -> None:
        if job.lane is not None and not job.accepted.is_set():
            job.lane.alone = False
        job.accepted.set()
        job.hear(update, self._clock(), self._running_clock())
        await job.log.append(self.running_event(job, update))
        job.heard_at = self._running_clock()  # it was not listened to while the store was away

    def running_event(self, job: LiveJob, update: EditProgress) -> JobEvent:
        """Return what the log is told of a response."""
        waits = job.engine_since is None
        return JobEvent(
            status=JobStatus.PROCESSING,
            total_steps=update.total_steps,
            current_step=update.step,
            progress=update.progress,
            stage=update.stage,
            size=job.size,
            computed_sizes=job.computed_sizes,
            engine_taken=waits and job.lane is not None and bool(job.lane.taken_by),
            eta_seconds=known(self._lanes.seconds_left(job)),
            preview=update.preview,
            at=time.time(),
        )

    async def _finish(self, job: LiveJob, result: EditResult) -> None:
        event = JobEvent(
            status=JobStatus.DONE, total_steps=job.steps, stage=Stage.DONE, at=time.time()
        )
        job.leaving = True
        ended = await job.log.end(event, result)
        self._lanes.learn(job)
        self._log_how(job, event, ended=ended)

    async def _fail(self, job: LiveJob, error: ServingError) -> None:
        if isinstance(error, InvalidInputError):
            error = InvalidInputError(in_field_names(error.detail))
        if isinstance(error, ModelCancelledError):
            await self._end(job, JobStatus.CANCELLED, CANCELLED_TEXT)
        else:
            at_fault = error.status >= 500
            await self._end(job, JobStatus.ERROR, error.job_error, at_fault=at_fault)

    async def _end(
        self, job: LiveJob, status: JobStatus, error: str, *, at_fault: bool = False
    ) -> None:
        event = JobEvent(status=status, total_steps=job.steps, error=error, at=time.time())
        if job.log.ended:
            return  # a job that is done stays done
        job.leaving = True
        self._log_how(job, event, ended=await job.log.end(event), at_fault=at_fault)

    def _log_how(
        self, job: LiveJob, event: JobEvent, *, ended: bool, at_fault: bool = False
    ) -> None:
        """Log a job's end, or a client's cancel that came before. Others log theirs."""
        if ended:
            self._log_end(job, event.status, event.error, at_fault=at_fault)
        elif job.log.status is JobStatus.CANCELLED:
            self._log_end(job, JobStatus.CANCELLED)

    def _log_end(
        self, job: LiveJob, status: JobStatus, error: str | None = None, *, at_fault: bool = False
    ) -> None:
        log_end(
            job.job_id,
            status,
            error,
            at_fault=at_fault,
            steps=job.steps,
            size=job.size,
            computed_sizes=job.computed_sizes,
            task_type=job.task_type,
            queued_seconds=round(job.queued_seconds, 3),
            run_seconds=round(self._clock() - job.started_at, 3),
        )

    async def end_early(self, job: LiveJob, reason: ServingError, grace_s: float) -> None:
        """End a running job: ask the model first, and cut the stream only if that fails.

        A job whose end waits for the store has nothing more to do with the model.
        """
        try:
            if job.end_reason is None:
                job.end_reason = reason
                job.ending.set()
                async with loop_time.timeout(self._settings.cancel_timeout_s):
                    await job.accepted.wait()
                    if not job.ended.is_set():
                        await self.watch_of(job).client.cancel_edit(job.request_id)
            async with loop_time.timeout(grace_s):
                await job.ended.wait()
        except (TimeoutError, ServingError) as error:
            if job.leaving and not job.log.ended:
                return
            log.warning("cancel_unanswered", task_id=job.job_id, reason=repr(error))
            if job.stream is not None:
                job.stream.cut(reason)


def _taken() -> BackendError:
    return BackendError("another process has the job")
