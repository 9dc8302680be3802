"""Owns the way of an edit from its submission through the queue and Triton to its end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import uuid
from typing import TYPE_CHECKING, Self

import structlog

from frontend.dispatch.queue import Edit, EditQueue
from frontend.domain.edits import EditResult, Stage
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.errors import (
    BackendError,
    ClosingError,
    InvalidInputError,
    JobNotFoundError,
    ServingError,
    StoppedError,
    TritonAwayError,
    UnavailableError,
    UnsupportedError,
)
from frontend.triton.edit_tensors import edit_update, refusal
from frontend.triton.loading import away_error, loading_stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frontend.domain.edits import EditParams, EditProgress
    from frontend.domain.models import EditModelState
    from frontend.jobs.store import JobStore
    from frontend.settings import Settings
    from frontend.triton.watch import TritonWatch

log = structlog.get_logger()

CANCELLED_TEXT = "Generation cancelled by user"
# How often an edit that Triton has lost, and not answered, is given to one: it may be what broke.
MAX_LOST_STARTS = 2


class EditService:
    """Accepts edits, keeps them waiting, gives Triton a few at a time and logs what happens.

    An asynchronous context manager: jobs move only inside it, and all have ended after it.

    Args:
        settings: bounds and times.
        jobs: where every job's state lives.
        watches: the Tritons that run edits, all of the same bundle; at least one.
    """

    def __init__(
        self,
        settings: Settings,
        jobs: JobStore,
        watches: Sequence[TritonWatch[EditModelState]],
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._clock = asyncio.get_running_loop().time
        self._queue = EditQueue(
            settings.max_queue_size, settings.max_in_flight, self._clock, len(watches)
        )
        self._watches = dict(zip(self._queue.lanes, watches, strict=True))
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._away_since: float | None = None
        # Of this absence. Each is told once: several Tritons that load may share the file.
        self._told_stages: list[str] = []

    async def __aenter__(self) -> Self:
        await self._beat()
        self._supervisor = asyncio.create_task(self._supervise())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._supervisor.cancel()
        await self._fail_waiting(ClosingError())
        # Triton does not stop while a job runs.
        running = list(self._queue.running.values())
        grace_s = self._settings.cancel_timeout_s
        await asyncio.gather(*(self._stop(edit, ClosingError(), grace_s) for edit in running))
        await asyncio.gather(self._supervisor, *self._tasks, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """Number of jobs that wait to start."""
        return len(self._queue.waiting)

    @property
    def running(self) -> int:
        """Number of jobs that Triton has."""
        return len(self._queue.running)

    def require(self) -> list[EditModelState]:
        """Return the last answers of the Tritons that can run edits now.

        Raises:
            TritonAwayError: there is none; the detail says why.
        """
        watches = self._watches.values()
        if states := [watch.state for watch in watches if watch.state is not None]:
            return states
        raise self._away_error()

    @property
    def tritons(self) -> int:
        """Number of Tritons, ready or not."""
        return len(self._watches)

    def admit(self, task_type: str) -> None:
        """Check that an edit would be accepted now, before any work is put into it.

        Raises:
            UnavailableError: Triton is away, the queue is full, or the server is stopping.
            UnsupportedError: the loaded bundle cannot run `task_type`.
        """
        if self._closing:
            raise ClosingError()
        if not any(task_type in state.adapters for state in self.require()):
            raise UnsupportedError(f"task_type: the adapter for {task_type} is not installed")
        if self._queue.full:
            raise UnavailableError("The queue is full")

    async def submit(self, params: EditParams) -> str:
        """Queue an edit and return its task_id.

        Raises:
            UnavailableError: Triton is away, or the queue or the job store is full.
            UnsupportedError: the loaded bundle cannot run the task.
        """
        self.admit(params.task_type)
        edit = Edit(str(uuid.uuid4()), params.num_inference_steps)
        self._queue.enter(edit)
        try:
            event = self._queued_event(edit, self._queue.seconds_left(edit))
            await self._jobs.create(edit.task_id, params, event)
        except ServingError:
            self._queue.leave(edit)
            raise
        edit.startable = True
        log.info("job_queued", task_id=edit.task_id, task_type=params.task_type, steps=edit.steps)
        self._dispatch()
        return edit.task_id

    async def mark_cancelled(self, task_id: str) -> None:
        """Make sure that the job does not start any more; `finish_cancel` must follow.

        Two calls, because the client's answer has to go out between them: a stream that ends
        before the answer to its cancel looks like a failure to the known web client. Neither
        changes a job that has ended.

        Raises:
            JobNotFoundError: no such job.
        """
        await self._jobs.last(task_id)
        if edit := self._queue.waiting.get(task_id):
            edit.startable = False

    async def finish_cancel(self, task_id: str) -> None:
        """Bring a job that `mark_cancelled` has seen to its end."""
        if edit := self._queue.waiting.get(task_id):
            self._queue.leave(edit)
            await self._end(edit, JobStatus.CANCELLED, CANCELLED_TEXT)
        elif edit := self._queue.running.get(task_id):
            await self._stop(edit, StoppedError(CANCELLED_TEXT), self._settings.cancel_grace_s)

    # --- waiting ---

    def _dispatch(self) -> None:
        """Start waiting jobs while Triton may have more."""
        for lane, watch in self._watches.items():
            lane.ready = watch.state is not None and not lane.full
        while not self._closing and (edit := self._queue.start_next()):
            task = asyncio.create_task(self._run(edit))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _announce(self, waiting: list[tuple[Edit, float]]) -> None:
        """Tell waiting jobs how they stand; with each, the seconds until its end."""
        for edit, seconds_left in waiting:
            await self._jobs.append(edit.task_id, self._queued_event(edit, seconds_left))

    async def _announce_all(self) -> None:
        """Tell all waiting jobs that Triton went away, how far its load is, or that it is back."""
        waiting = self._queue.waiting.values()
        await self._announce([(edit, self._queue.seconds_left(edit)) for edit in waiting])

    @property
    def _away(self) -> bool:
        return all(watch.state is None for watch in self._watches.values())

    def _away_error(self) -> TritonAwayError:
        return away_error(next(iter(self._watches.values())).reason, self._settings.loading_file)

    def _queued_event(self, edit: Edit, seconds_left: float) -> JobEvent:
        return JobEvent(
            status=JobStatus.QUEUED,
            total_steps=edit.steps,
            queue_position=edit.position,
            triton_away=self._away,
            triton_loading=self._told_stages[-1] if self._told_stages else None,
            eta_seconds=_known(seconds_left),
            at=time.time(),
        )

    # --- with Triton ---

    async def _run(self, edit: Edit) -> None:
        with structlog.contextvars.bound_contextvars(task_id=edit.task_id):
            try:
                await self._follow(edit)
            except ServingError as error:
                if isinstance(error, TritonAwayError):
                    self._watch_of(edit).lose(error)
                if self._may_start_again(edit, error):
                    log.info("job_refused", reason=error.detail)
                    self._queue.put_back(edit)
                    await self._announce(self._queue.moved_up())
                else:
                    await self._fail(edit, edit.stopped_by or error)
            except Exception:
                log.exception("job_crashed")
                await self._fail(edit, BackendError("The server failed"))
            finally:
                if edit.lane:
                    self._queue.leave(edit)
                self._dispatch()

    def _may_start_again(self, edit: Edit, error: ServingError) -> bool:
        """Whether an edit waits on: no model has answered it, and another or a later one may."""
        if self._closing or edit.stopped_by or edit.accepted.is_set():
            return False
        if isinstance(error, TritonAwayError):
            return edit.starts < MAX_LOST_STARTS
        if edit.lane and isinstance(error, UnavailableError):
            edit.lane.full = True
            return True
        return False

    async def _follow(self, edit: Edit) -> None:
        """Log the model's responses until its stream ends."""
        done = False
        edit.heard_at = self._clock()
        edit.stream = self._watch_of(edit).client.edit(
            edit.task_id, await self._jobs.params(edit.task_id), self._settings.job_timeout_s
        )
        async with contextlib.aclosing(edit.stream.responses()) as responses:
            async for response in responses:
                update = edit_update(response)
                if isinstance(update, EditResult):
                    await self._finish(edit, update)
                    done = True
                else:
                    await self._advance(edit, update)
        if not done:
            raise BackendError("the model ended the job without a result")

    async def _advance(self, edit: Edit, update: EditProgress) -> None:
        if not edit.accepted.is_set():
            edit.accepted.set()
            await self._jobs.release(edit.task_id)
        edit.hear(update, self._clock())
        event = JobEvent(
            status=JobStatus.PROCESSING,
            total_steps=update.total_steps,
            current_step=update.step,
            progress=update.progress,
            stage=update.stage,
            eta_seconds=_known(self._queue.seconds_left(edit)),
            preview=update.preview,
            at=time.time(),
        )
        await self._jobs.append(edit.task_id, event)

    async def _finish(self, edit: Edit, result: EditResult) -> None:
        event = JobEvent(
            status=JobStatus.DONE, total_steps=edit.steps, stage=Stage.DONE, at=time.time()
        )
        await self._jobs.append(edit.task_id, event, result)
        self._queue.learn(edit)
        log.info("job_ended", status=event.status)

    async def _fail(self, edit: Edit, error: ServingError) -> None:
        if isinstance(error, InvalidInputError):
            error = InvalidInputError(refusal(error.detail))
        if isinstance(error, StoppedError):
            await self._end(edit, JobStatus.CANCELLED, CANCELLED_TEXT)
        else:
            await self._end(edit, JobStatus.ERROR, error.job_error)

    async def _end(self, edit: Edit, status: JobStatus, error: str) -> None:
        event = JobEvent(status=status, total_steps=edit.steps, error=error, at=time.time())
        # A job that is done already, and may be forgotten by now, stays so.
        with contextlib.suppress(JobNotFoundError):
            if await self._jobs.append(edit.task_id, event):
                log.info("job_ended", task_id=edit.task_id, status=status, error=error)

    async def _stop(self, edit: Edit, reason: ServingError, grace_s: float) -> None:
        """End a running job: ask the model, and cut the stream only where that does not help."""
        try:
            if edit.stopped_by is None:
                edit.stopped_by = reason
                async with asyncio.timeout(self._settings.cancel_timeout_s):
                    await edit.accepted.wait()
                    if not edit.ended.is_set():
                        await self._watch_of(edit).client.cancel_edit(edit.task_id)
            async with asyncio.timeout(grace_s):
                await edit.ended.wait()
        except (TimeoutError, ServingError) as error:
            log.warning("cancel_unanswered", task_id=edit.task_id, reason=repr(error))
            if edit.stream is not None:
                edit.stream.cut(reason)

    # --- faults ---

    async def _supervise(self) -> None:
        """Ask for Triton's health for ever, and end the jobs that would not end by themselves."""
        while True:
            next_beat = self._clock() + self._settings.ping_interval_s
            try:
                await self._beat()
                await self._react()
                # Once a beat, not at each start: a long queue of short jobs would talk of
                # little else.
                await self._announce(self._queue.moved_up())
            except Exception:
                log.exception("supervision_failed")
            await asyncio.sleep(next_beat - self._clock())

    async def _beat(self) -> None:
        await asyncio.gather(*(watch.beat() for watch in self._watches.values()))

    def _watch_of(self, edit: Edit) -> TritonWatch[EditModelState]:
        assert edit.lane is not None, "it has not started"
        return self._watches[edit.lane]

    async def _react(self) -> None:
        for silent in self._queue.silent(self._settings.silence_timeout_s):
            state = self._watch_of(silent).state
            # Another client's edit may hold the engine for as long as it takes.
            waits = silent.engine_since is None and state is not None and state.running > 0
            if silent.stream and not waits:
                silent.stream.cut(BackendError("the model stopped responding"))
        for lane, watch in self._watches.items():
            if watch.lost:
                for edit in lane.running.values():
                    if edit.stream is not None:
                        edit.stream.cut(TritonAwayError(watch.reason))
            elif watch.state and watch.state.waiting < watch.state.max_queue_size:
                lane.full = False
        self._dispatch()
        await self._bear_absence()

    async def _bear_absence(self) -> None:
        """Tell waiting jobs when no Triton can run them, and end them where that lasts."""
        if not self._away:
            if self._away_since is not None:
                self._away_since = None
                self._told_stages.clear()
                await self._announce_all()
            return
        changed = self._away_since is None
        if self._away_since is None:
            self._away_since = self._clock()
        stage = loading_stage(self._settings.loading_file)
        if stage is not None and stage not in self._told_stages:
            self._told_stages.append(stage)
            changed = True
        if changed:
            await self._announce_all()
        if self._clock() - self._away_since > self._settings.recovery_timeout_s:
            await self._fail_waiting(self._away_error())

    async def _fail_waiting(self, error: ServingError) -> None:
        for edit in list(self._queue.waiting.values()):
            self._queue.leave(edit)
            await self._fail(edit, error)


def _known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds, 3)
