"""Owns the way of a job from the store through Triton to its end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import os
import socket
import time
import uuid
from typing import TYPE_CHECKING, Any, Self

import structlog

from frontend import loop_time
from frontend.dispatch.job_log import ClaimLostError, JobLog
from frontend.dispatch.outage import Outage
from frontend.dispatch.queue import JobQueue, LiveJob
from frontend.domain.edits import EditResult, Stage
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.errors import (
    BackendError,
    ClosingError,
    InvalidInputError,
    ModelCancelledError,
    ServingError,
    StoreAwayError,
    TritonDownError,
    TritonStoppingError,
    UnavailableError,
)
from frontend.jobs.rules import CANCELLED_TEXT
from frontend.loop_time import RunningClock
from frontend.supervision import Rounds, supervised_task
from frontend.triton.edit_tensors import edit_update, in_field_names
from frontend.triton.loading import loading_stage, outage_error

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from frontend.domain.edits import EditProgress, Size
    from frontend.domain.models import EditModelState
    from frontend.domain.owners import Owner
    from frontend.jobs.store import Claim, Held, JobStore, Waiting
    from frontend.settings import Settings
    from frontend.triton.watch import TritonWatch

log = structlog.get_logger()

LEASE_S = 10.0
"""How long a job is its dispatcher's without a sign of life from that."""
RENEWAL_S = 1.0
UNKNOWN_AREA = 2**20
"""Pixels that a model is taken to compute at most until the first Triton answers."""


class Dispatcher:
    """Takes jobs from the store, gives each Triton a few at a time, logs what happens; a Board.

    An asynchronous context manager: jobs move only inside it. After it those that ran wait again.

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
        self._outage = Outage(settings.recovery_timeout_s)
        self._image_area = UNKNOWN_AREA
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        # Nobody else's, so that what another process has written is never taken for this one's.
        self._worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._work = contextlib.ExitStack()
        self._room: asyncio.Event

    async def __aenter__(self) -> Self:
        self._room = self._work.enter_context(self._store.work())
        await self._ping_all()
        await self._look_at_waiting()
        self._supervisors = (
            supervised_task("edits-clock", self._running_clock.run()),
            supervised_task("edits", self._supervise()),
            supervised_task("edits-leases", self._keep_leases()),
            supervised_task("edits-claims", self._claim_for_ever()),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        for supervisor in self._supervisors:
            supervisor.cancel()
        # Waiting jobs stay in the store. Running ones go back to it, and Triton must not stop
        # while one runs.
        running = list(self._queue.running.values())
        grace_s = self._settings.cancel_timeout_s
        await asyncio.gather(*(self._end_early(job, ClosingError(), grace_s) for job in running))
        await asyncio.gather(*self._supervisors, *self._tasks, return_exceptions=True)
        for watch in self._watches.values():
            watch.close()
        self._work.close()

    @property
    def waiting(self) -> int:
        """See Board."""
        return len(self._queue.waiting)

    @property
    def running(self) -> int:
        """See Board."""
        return len(self._queue.running)

    @property
    def tritons(self) -> int:
        """See Board."""
        return len(self._watches)

    def require(self) -> list[EditModelState]:
        """See Board."""
        if self._closing:
            raise ClosingError()
        watches = self._watches.values()
        if states := [watch.state for watch in watches if watch.state is not None]:
            return states
        raise self._outage_error()

    def expected_seconds(self, steps: int, size: Size | None) -> float | None:
        """See Board."""
        if self._down:
            return None
        return _known(self._queue.expected_seconds(steps, self.pixels(size)))

    def check(self, owner: Owner) -> None:
        """See Board."""
        self._queue.check(owner)

    def outlook(self, owner: Owner, event: JobEvent) -> JobEvent:
        """See Board."""
        job = LiveJob("", event.total_steps, self.pixels(event.size), owner.name)
        return self._as_queued(event, *self._queue.outlook(job))

    def expect(self, job: Waiting) -> None:
        """See Board."""
        if job.job_id not in self._queue.running:
            self._queue.enter(self._live(job, job.last))

    async def end_cancelled(self, job_id: str) -> None:
        """See Board; a job that another process runs is ended by that."""
        if not await self._end_waiting(job_id, JobStatus.CANCELLED, CANCELLED_TEXT) and (
            job := self._queue.running.get(job_id)
        ):
            reason = ModelCancelledError(CANCELLED_TEXT)
            await self._end_early(job, reason, self._settings.cancel_grace_s)

    def standing(self, job_id: str, last: JobEvent) -> JobEvent:
        """See Board."""
        if last.status is not JobStatus.QUEUED:
            return last
        if job_id not in self._queue.waiting:
            # It has been taken, and its log does not say so yet: its place there is of long ago.
            return dataclasses.replace(last, queue_position=None)
        position, seconds_left = self._queue.standings()[job_id]
        return self._as_queued(last, position, seconds_left)

    def pixels(self, size: Size | None) -> int:
        """See Board."""
        states = [watch.state for watch in self._watches.values() if watch.state is not None]
        self._image_area = max([state.image_area for state in states], default=self._image_area)
        return self._image_area if size is None else min(self._image_area, size[0] * size[1])

    # --- waiting ---

    async def _look_at_waiting(self) -> None:
        """Learn what waits in the store: from before a start, or from another process."""
        known = list(self._queue.waiting.values())
        listed = {each.job_id: each for each in await self._store.waiting()}
        self._queue.turns |= {each.owner: each.last_turn for each in listed.values()}
        for job in known:
            # Unless it has been started meanwhile.
            if job.job_id not in listed and self._queue.waiting.get(job.job_id) is job:
                self._queue.leave(job)
        for job_id, each in listed.items():
            if job_id not in self._queue.waiting:
                self.expect(each)
        owners = {job.owner for job in self._queue.waiting.values()}
        owners |= {job.owner for job in self._queue.running.values()}
        self._queue.turns = {
            owner: turn for owner, turn in self._queue.turns.items() if owner in owners
        }

    def _live(self, stored: Waiting | Claim, event: JobEvent) -> LiveJob:
        return LiveJob(
            stored.job_id,
            event.total_steps,
            self.pixels(event.size),
            stored.owner,
            stored.max_running,
            size=event.size,
            task_type=stored.task_type,
            number=stored.number,
            entered_at=self._clock(),
        )

    async def _claim_for_ever(self) -> None:
        """Start waiting jobs whenever Triton may have more."""
        rounds = Rounds("edits-claims")
        while True:
            self._room.clear()
            with rounds.one(), _store_may_be_away():
                await self._claim_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.ping_interval_s):
                    await self._room.wait()

    async def _claim_all(self) -> None:
        for lane, watch in self._watches.items():
            lane.ready = watch.state is not None and not lane.full
        while not self._closing and (free := self._queue.free_lane()):
            state = self._watches[free].state
            assert state is not None, "it is ready"
            claim = await self._store.claim(self._worker, state.adapters, LEASE_S)
            if claim is None:
                return
            job = self._queue.waiting.get(claim.job_id)
            if job is None:
                job = self._live(claim, claim.last[1])
            job.request_id = claim.request_id
            job.log = JobLog(self._store, claim, LEASE_S)
            self._queue.start(job, free, claim.turn)
            self._in_background(self._run(job, claim))

    def _as_queued(self, event: JobEvent, position: int, seconds_left: float) -> JobEvent:
        """Return a waiting job's event with how it stands now."""
        return dataclasses.replace(
            event,
            queue_position=position,
            engine_taken=self._taken,
            triton_down=self._down,
            triton_loading=self._outage.stage,
            eta_seconds=_known(seconds_left),
            at=time.time(),
        )

    # --- with Triton ---

    async def _run(self, job: LiveJob, claim: Claim) -> None:
        with structlog.contextvars.bound_contextvars(task_id=job.job_id):
            try:
                await self._drive(job, claim)
            except ClaimLostError:
                await self._abandon(job)
            except StoreAwayError as error:
                # Its lease will be over, and then it waits again.
                log.warning("store_away", reason=error.detail)
            finally:
                self._queue.leave(job)
                self._room.set()

    async def _drive(self, job: LiveJob, claim: Claim) -> None:
        """Take a job to its end, or give it back."""
        try:
            await self._follow(job)
        except ServingError as error:
            if isinstance(error, TritonDownError):
                self._watch_of(job).mark_down(error)
            if job.lost:
                return
            if isinstance(job.end_reason, ClosingError):
                await self._give_back(claim, error)
            elif job.end_reason is not None:
                await self._fail(job, job.end_reason)
            elif isinstance(error, TritonStoppingError) and not job.accepted.is_set():
                await self._give_back(claim, error)
            elif isinstance(error, TritonDownError):
                await self._give_back(claim, error, lost=error.job_error)
            elif isinstance(error, UnavailableError) and not job.accepted.is_set():
                assert job.lane is not None, "it has started"
                job.lane.full = True
                await self._give_back(claim, error)
            else:
                await self._fail(job, error)
        except ClaimLostError:
            raise
        except Exception:
            log.exception("job_crashed")
            await self._fail(job, BackendError("The server failed"))

    async def _give_back(
        self, claim: Claim, reason: ServingError, *, lost: str | None = None
    ) -> None:
        """Let a job wait again; see `JobStore.give_back` for `lost`."""
        log.info("job_returned", reason=reason.detail, counted=lost is not None)
        await self._store.give_back(claim, lost)

    async def _abandon(self, job: LiveJob) -> None:
        """Stop the work on a job that another process may have begun anew."""
        log.warning("claim_lost", task_id=job.job_id)
        job.lost = True
        with contextlib.suppress(TimeoutError, ServingError):
            async with loop_time.timeout(self._settings.cancel_timeout_s):
                await self._watch_of(job).client.cancel_edit(job.request_id)
        if job.stream is not None:
            job.stream.cut(BackendError("another process has the job"))

    async def _follow(self, job: LiveJob) -> None:
        """Log the model's responses until its stream ends."""
        done = False
        job.heard_at = self._running_clock()
        job.stream = self._watch_of(job).client.edit(
            job.request_id, await self._store.params(job.job_id), self._settings.job_timeout_s
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
        job.accepted.set()
        job.hear(update, self._clock(), self._running_clock())
        await job.log.append(self._running_event(job, update))

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
        ended = await job.log.end(event, result)
        self._queue.learn(job)
        self._log_end(job, event.status if ended else JobStatus.CANCELLED)

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
        # A job that is done stays done.
        if await job.log.end(event):
            self._log_end(job, status, error, at_fault=at_fault)

    async def _end_waiting(self, job_id: str, status: JobStatus, error: str) -> bool:
        """End a job unless a process runs it or it has ended; return whether it did."""
        if not await self._store.end_waiting(job_id, status, error):
            return False
        if (job := self._queue.waiting.get(job_id)) is not None:
            self._queue.leave(job)
            self._log_end(job, status, error)
        return True

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
                        await self._watch_of(job).client.cancel_edit(job.request_id)
            async with loop_time.timeout(grace_s):
                await job.ended.wait()
        except (TimeoutError, ServingError) as error:
            log.warning("cancel_unanswered", task_id=job.job_id, reason=repr(error))
            if job.stream is not None:
                job.stream.cut(reason)

    # --- faults ---

    async def _keep_leases(self) -> None:
        """Show the store that this process lives, and hear which of its jobs are to end."""
        rounds = Rounds("edits-leases")
        renewed_at = self._clock()
        while True:
            await asyncio.sleep(RENEWAL_S)
            running = [job for job in self._queue.running.values() if not job.lost]
            with rounds.one():
                try:
                    held = await self._store.renew([job.log.claim for job in running], LEASE_S)
                except StoreAwayError as error:
                    log.warning("store_away", reason=error.detail)
                    # Another process may begin them now.
                    if self._clock() - renewed_at > LEASE_S:
                        self._in_background(*(self._abandon(job) for job in running))
                    continue
                renewed_at = self._clock()
                self._heed({f"{each.job_id}.{each.attempt}": each for each in held}, running)

    def _heed(self, held: dict[str, Held], running: list[LiveJob]) -> None:
        """Stop running jobs that this process has lost, and those whose clients want that."""
        for job in running:
            if job.ended.is_set():
                continue
            if (hold := held.get(job.request_id)) is None:
                self._in_background(self._abandon(job))
            elif hold.cancel_asked and job.end_reason is None:
                reason = ModelCancelledError(CANCELLED_TEXT)
                self._in_background(self._end_early(job, reason, self._settings.cancel_grace_s))

    def _in_background(self, *work: Coroutine[Any, Any, None]) -> None:
        for each in work:
            task = asyncio.create_task(each)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _supervise(self) -> None:
        """Ping Triton for ever, and end the jobs that would not end by themselves."""
        rounds = Rounds("edits")
        while True:
            next_ping = self._clock() + self._settings.ping_interval_s
            with rounds.one():
                await self._ping_all()
                with _store_may_be_away():
                    await self._look_at_waiting()
                await self._react()
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
        self._room.set()
        await self._react_to_outage()

    def _is_at_work(self, job: LiveJob) -> bool:
        """Return whether the model has said why it sends nothing of a job."""
        state = self._watch_of(job).state
        if state is None or not state.running:
            return False
        if state.running_id == job.request_id:
            # Slow, unless the engine does not even pass from one layer to the next.
            return state.quiet_seconds <= self._settings.silence_timeout_s
        # Another client's edit may hold the engine for as long as it takes.
        return job.engine_since is None

    async def _note_work(self) -> None:
        """Tell running jobs, and the log, when an engine works on a job that has ended."""
        for lane, watch in self._watches.items():
            before = lane.taken_by
            if not lane.note_work(watch.state.running_id if watch.state else ""):
                continue
            if watch.state and lane.taken_by:
                quiet_s = watch.state.quiet_seconds
                log.warning("engine_taken", request_id=lane.taken_by, quiet_seconds=quiet_s)
            else:
                log.info("engine_free", request_id=before)
            for job in list(lane.running.values()):
                if job.engine_since is None and job.last is not None:
                    with contextlib.suppress(ClaimLostError):
                        await job.log.append(self._running_event(job, job.last))

    @property
    def taken_by(self) -> list[str]:
        """See Board."""
        return [lane.taken_by.rsplit(".", 1)[0] for lane in self._watches if lane.taken_by]

    @property
    def _taken(self) -> bool:
        """Whether no engine is free of ended jobs."""
        return all(lane.taken_by for lane in self._watches)

    async def _react_to_outage(self) -> None:
        """Take note of an outage; end the waiting jobs if it lasts."""
        down = self._down
        stage = loading_stage(self._settings.loading_file) if down else None
        if self._outage.note(self._clock(), down=down, stage=stage):
            error = self._outage_error().job_error
            with _store_may_be_away():
                for job_id in list(self._queue.waiting):
                    await self._end_waiting(job_id, JobStatus.ERROR, error)

    @property
    def _down(self) -> bool:
        return all(watch.state is None for watch in self._watches.values())

    def _outage_error(self) -> TritonDownError:
        return outage_error(next(iter(self._watches.values())).reason, self._settings.loading_file)


@contextlib.contextmanager
def _store_may_be_away() -> Iterator[None]:
    """Let what needs the store be tried in the next round."""
    try:
        yield
    except StoreAwayError as error:
        log.warning("store_away", reason=error.detail)


def _known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds, 3)
