"""Owns the way of a job from its submission through the queue and Triton to its end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import uuid
from typing import TYPE_CHECKING, Any, Self

import structlog

from frontend import loop_time
from frontend.dispatch.outage import Outage
from frontend.dispatch.queue import JobQueue, LiveJob
from frontend.domain.edits import EditResult, Stage
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.domain.owners import price
from frontend.errors import (
    BackendError,
    ClosingError,
    InvalidInputError,
    JobNotFoundError,
    ModelCancelledError,
    ServingError,
    TritonDownError,
    UnavailableError,
    UnsupportedError,
)
from frontend.loop_time import RunningClock
from frontend.shares import Budgets
from frontend.supervision import Rounds, supervised_task
from frontend.triton.edit_tensors import edit_update, in_field_names
from frontend.triton.loading import loading_stage, outage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from frontend.domain.edits import EditParams, EditProgress, Size
    from frontend.domain.models import EditModelState
    from frontend.domain.owners import Owner
    from frontend.jobs.store import JobStore
    from frontend.settings import Settings
    from frontend.triton.watch import TritonWatch

log = structlog.get_logger()

CANCELLED_TEXT = "Generation cancelled by user"
# Start a job at most twice if its Triton dies before it answers: the job itself may be the cause.
MAX_LOST_STARTS = 2


class EditService:
    """Accepts edits, keeps their jobs waiting, gives Triton a few at a time, logs what happens.

    An asynchronous context manager: jobs move only inside it, and all have ended after it.

    Args:
        settings: bounds and times.
        store: where every job's state lives.
        watches: the Tritons that run edits, all of the same bundle; at least one.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        watches: Sequence[TritonWatch[EditModelState]],
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = asyncio.get_running_loop().time
        self._running_clock = RunningClock()
        self._queue = JobQueue(
            settings.max_queue_size,
            settings.max_in_flight,
            self._clock,
            len(watches),
            self._running_clock,
        )
        self._watches = dict(zip(self._queue.lanes, watches, strict=True))
        self._budgets = Budgets(self._clock)
        self._outage = Outage(settings.recovery_timeout_s)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def __aenter__(self) -> Self:
        await self._ping_all()
        self._supervisors = (
            supervised_task("edits-clock", self._running_clock.run()),
            supervised_task("edits", self._supervise()),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        for supervisor in self._supervisors:
            supervisor.cancel()
        await self._fail_waiting(ClosingError())
        # Triton does not stop while a job runs.
        running = list(self._queue.running.values())
        grace_s = self._settings.cancel_timeout_s
        await asyncio.gather(*(self._end_early(job, ClosingError(), grace_s) for job in running))
        await asyncio.gather(*self._supervisors, *self._tasks, return_exceptions=True)
        for watch in self._watches.values():
            watch.close()

    @property
    def waiting(self) -> int:
        """Number of jobs that wait to start."""
        return len(self._queue.waiting)

    @property
    def running(self) -> int:
        """Number of jobs that Triton has."""
        return len(self._queue.running)

    @property
    def tritons(self) -> int:
        """Number of Tritons, ready or not."""
        return len(self._watches)

    def require(self) -> list[EditModelState]:
        """Return the last answers of the Tritons that can run edits now.

        Raises:
            TritonDownError: no Triton can; the detail gives the reason.
        """
        watches = self._watches.values()
        if states := [watch.state for watch in watches if watch.state is not None]:
            return states
        raise self._outage_error()

    def admit(self, owner: Owner, task_type: str) -> None:
        """Check that an edit would be accepted now, before any work is put into it.

        Raises:
            UnavailableError: Triton is down, the queue is full, or the server is stopping.
            TooMuchError: the owner has as many jobs waiting, or has had as many, as it may.
            UnsupportedError: the loaded bundle cannot run `task_type`.
        """
        if self._closing:
            raise ClosingError()
        if not any(task_type in state.adapters for state in self.require()):
            raise UnsupportedError(f"task_type: the adapter for {task_type} is not installed")
        self._queue.check(owner)
        self._budgets.check(owner)

    def expected_seconds(self, steps: int, size: Size | None) -> float | None:
        """Return how long an edit takes on an idle engine, in seconds.

        Args:
            steps: denoising steps.
            size: of the answer, if known.

        Returns:
            None if no edit was measured yet, or no Triton can run edits now.
        """
        if self._down:
            return None
        return _known(self._queue.expected_seconds(steps, self._pixels(size)))

    async def submit(
        self, owner: Owner, params: EditParams, original: bytes, size: Size | None
    ) -> str:
        """Queue an edit and return the id of its job.

        Args:
            owner: whose it is.
            params: the edit.
            original: the file that its picture came as.
            size: of the answer, if known.

        Raises:
            UnavailableError: Triton is down, or the queue or the job store is full.
            TooMuchError: the owner has as much waiting, or has had as much, as it may.
            UnsupportedError: the loaded bundle cannot run the task.
        """
        # A second time, because the queue may have filled up while the images were decoded.
        self.admit(owner, params.task_type)
        pixels = self._pixels(size)
        steps, task_type = params.num_inference_steps, params.task_type
        job = LiveJob(str(uuid.uuid4()), steps, pixels, owner, size, task_type=task_type)
        self._queue.enter(job)
        try:
            event = self._queued_event(job, self._queue.seconds_left(job))
            await self._store.create(job.job_id, params, original, event, owner)
        except ServingError:
            self._queue.leave(job)
            raise
        job.startable = True
        self._budgets.spend(owner, price(steps, pixels))
        log.info(
            "job_queued", task_id=job.job_id, task_type=task_type, steps=steps, owner=owner.name
        )
        self._dispatch()
        return job.job_id

    async def cancel(self, job_id: str) -> Callable[[], Coroutine[Any, Any, None]]:
        """Make sure that a job does not start any more.

        A job that has ended stays as it is.

        Returns:
            What brings the job to its end. Answer the client before you call it: the known web
            client takes a stream that ends before the answer to its cancel for a failure.

        Raises:
            JobNotFoundError: no such job.
        """
        await self._store.last(job_id)
        if job := self._queue.waiting.get(job_id):
            job.startable = False

        async def finish() -> None:
            # Looked up again: a running job may have ended, or wait once more.
            if job := self._queue.waiting.get(job_id):
                self._queue.leave(job)
                await self._end(job, JobStatus.CANCELLED, CANCELLED_TEXT)
            elif job := self._queue.running.get(job_id):
                reason = ModelCancelledError(CANCELLED_TEXT)
                await self._end_early(job, reason, self._settings.cancel_grace_s)

        return finish

    def _pixels(self, size: Size | None) -> int:
        """Return how many pixels the model computes at most for an answer of this size."""
        area = max(state.image_area for state in self.require())
        return area if size is None else min(area, size[0] * size[1])

    # --- waiting ---

    def _dispatch(self) -> None:
        """Start waiting jobs while Triton may have more."""
        for lane, watch in self._watches.items():
            lane.ready = watch.state is not None and not lane.full
        while not self._closing and (job := self._queue.start_next()):
            task = asyncio.create_task(self._run(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _announce(self, waiting: list[tuple[LiveJob, float]]) -> None:
        """Send waiting jobs how they stand; with each come the seconds until its end."""
        for job, seconds_left in waiting:
            await self._store.append(job.job_id, self._queued_event(job, seconds_left))

    async def _announce_all(self) -> None:
        """Send every waiting job how it stands."""
        await self._announce(self._queue.standings())

    def _queued_event(self, job: LiveJob, seconds_left: float) -> JobEvent:
        return JobEvent(
            status=JobStatus.QUEUED,
            total_steps=job.steps,
            size=job.size,
            queue_position=job.position,
            engine_taken=self._taken,
            triton_down=self._down,
            triton_loading=self._outage.stage,
            eta_seconds=_known(seconds_left),
            at=time.time(),
        )

    # --- with Triton ---

    async def _run(self, job: LiveJob) -> None:
        with structlog.contextvars.bound_contextvars(task_id=job.job_id):
            try:
                await self._follow(job)
            except ServingError as error:
                if isinstance(error, TritonDownError):
                    self._watch_of(job).mark_down(error)
                if self._may_start_again(job, error):
                    log.info("job_returned", reason=error.detail)
                    self._queue.put_back(job)
                    await self._announce(self._queue.moved())
                else:
                    await self._fail(job, job.end_reason or error)
            except Exception:
                log.exception("job_crashed")
                await self._fail(job, BackendError("The server failed"))
            finally:
                if job.lane:
                    self._queue.leave(job)
                self._dispatch()

    def _may_start_again(self, job: LiveJob, error: ServingError) -> bool:
        """Return whether a job waits on: no model has answered it, and one may later."""
        if self._closing or job.end_reason or job.accepted.is_set():
            return False
        if isinstance(error, TritonDownError):
            return job.starts < MAX_LOST_STARTS
        if job.lane and isinstance(error, UnavailableError):
            job.lane.full = True
            return True
        return False

    async def _follow(self, job: LiveJob) -> None:
        """Log the model's responses until its stream ends."""
        done = False
        job.heard_at = self._running_clock()
        job.stream = self._watch_of(job).client.edit(
            job.job_id, await self._store.params(job.job_id), self._settings.job_timeout_s
        )
        async with contextlib.aclosing(job.stream.responses()) as responses:
            async for response in responses:
                self._watch_of(job).note_answer()
                update = edit_update(response)
                if isinstance(update, EditResult):
                    await self._finish(job, update)
                    done = True
                else:
                    await self._advance(job, update)
        if not done:
            raise BackendError("the model ended the job without a result")

    async def _advance(self, job: LiveJob, update: EditProgress) -> None:
        if not job.accepted.is_set():
            job.accepted.set()
            await self._store.release(job.job_id)
        job.hear(update, self._clock(), self._running_clock())
        await self._store.append(job.job_id, self._running_event(job, update))

    def _running_event(self, job: LiveJob, update: EditProgress) -> JobEvent:
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
            eta_seconds=_known(self._queue.seconds_left(job)),
            preview=update.preview,
            at=time.time(),
        )

    async def _finish(self, job: LiveJob, result: EditResult) -> None:
        event = JobEvent(
            status=JobStatus.DONE, total_steps=job.steps, stage=Stage.DONE, at=time.time()
        )
        await self._store.append(job.job_id, event, result)
        self._queue.learn(job)
        self._log_end(job, event.status)

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
        # A job that is done stays done, and the store may have forgotten it by now.
        with contextlib.suppress(JobNotFoundError):
            if await self._store.append(job.job_id, event):
                self._log_end(job, status, error, at_fault=at_fault)

    def _log_end(
        self, job: LiveJob, status: JobStatus, error: str | None = None, *, at_fault: bool = False
    ) -> None:
        """Log a job's end, at level error if the server or the model is at fault."""
        now = self._clock()
        started = now if job.started_at is None else job.started_at
        write = log.error if at_fault else log.info
        write(
            "job_ended",
            task_id=job.job_id,
            status=status,
            error=error,
            task_type=job.task_type,
            steps=job.steps,
            size=job.size,
            computed_sizes=job.computed_sizes,
            queued_seconds=round(started - job.entered_at, 3),
            run_seconds=round(now - started, 3),
        )

    async def _end_early(self, job: LiveJob, reason: ServingError, grace_s: float) -> None:
        """End a running job: ask the model first, and cut the stream only if that fails."""
        try:
            if job.end_reason is None:
                job.end_reason = reason
                async with loop_time.timeout(self._settings.cancel_timeout_s):
                    await job.accepted.wait()
                    if not job.ended.is_set():
                        await self._watch_of(job).client.cancel_edit(job.job_id)
            async with loop_time.timeout(grace_s):
                await job.ended.wait()
        except (TimeoutError, ServingError) as error:
            log.warning("cancel_unanswered", task_id=job.job_id, reason=repr(error))
            if job.stream is not None:
                job.stream.cut(reason)

    # --- faults ---

    async def _supervise(self) -> None:
        """Ping Triton for ever, and end the jobs that would not end by themselves."""
        rounds = Rounds("edits")
        while True:
            next_ping = self._clock() + self._settings.ping_interval_s
            with rounds.one():
                await self._ping_all()
                await self._react()
                # Once a ping, not at each start: a long queue of short jobs would send
                # positions without end.
                await self._announce(self._queue.moved())
            await asyncio.sleep(next_ping - self._clock())

    async def _ping_all(self) -> None:
        await asyncio.gather(*(watch.ping() for watch in self._watches.values()))

    def _watch_of(self, job: LiveJob) -> TritonWatch[EditModelState]:
        assert job.lane is not None, "it has not started"
        return self._watches[job.lane]

    async def _react(self) -> None:
        for silent in self._queue.silent(self._settings.silence_timeout_s):
            if silent.stream and not self._is_at_work(silent):
                silent.stream.cut(BackendError("the model stopped responding"))
        await self._note_work()
        for lane, watch in self._watches.items():
            if watch.requests_lost:
                for job in lane.running.values():
                    if job.stream is not None:
                        job.stream.cut(TritonDownError(watch.reason))
            elif watch.state and watch.state.waiting < watch.state.max_queue_size:
                lane.full = False
        self._dispatch()
        await self._react_to_outage()

    def _is_at_work(self, job: LiveJob) -> bool:
        """Return whether the model has said why it sends nothing of a job."""
        state = self._watch_of(job).state
        if state is None or not state.running:
            return False
        if state.running_id == job.job_id:
            # Slow, unless the engine does not even pass from one layer to the next.
            return state.quiet_seconds <= self._settings.silence_timeout_s
        # Another client's edit may hold the engine for as long as it takes.
        return job.engine_since is None

    async def _note_work(self) -> None:
        """Tell waiting jobs, and the log, when an engine works on a job that has ended."""
        for lane, watch in self._watches.items():
            before = lane.taken_by
            if not lane.note_work(watch.state.running_id if watch.state else ""):
                continue
            if watch.state and lane.taken_by:
                quiet_s = watch.state.quiet_seconds
                log.warning("engine_taken", task_id=lane.taken_by, quiet_seconds=quiet_s)
            else:
                log.info("engine_free", task_id=before)
            for job in lane.running.values():
                if job.engine_since is None and job.last is not None:
                    await self._store.append(job.job_id, self._running_event(job, job.last))
            await self._announce_all()

    @property
    def taken_by(self) -> list[str]:
        """Ids of ended jobs that a model still works on, so that others wait."""
        return [lane.taken_by for lane in self._watches if lane.taken_by]

    @property
    def _taken(self) -> bool:
        """Whether no engine is free of ended jobs."""
        return all(lane.taken_by for lane in self._watches)

    async def _react_to_outage(self) -> None:
        """Announce an outage's begin, stages and end to waiting jobs; end them if it lasts."""
        down = self._down
        stage = loading_stage(self._settings.loading_file) if down else None
        consequences = self._outage.note(self._clock(), down=down, stage=stage)
        if consequences.announce:
            await self._announce_all()
        if consequences.give_up:
            await self._fail_waiting(self._outage_error())

    @property
    def _down(self) -> bool:
        return all(watch.state is None for watch in self._watches.values())

    def _outage_error(self) -> TritonDownError:
        return outage_error(next(iter(self._watches.values())).reason, self._settings.loading_file)

    async def _fail_waiting(self, error: ServingError) -> None:
        for job in list(self._queue.waiting.values()):
            self._queue.leave(job)
            await self._fail(job, error)


def _known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds, 3)
