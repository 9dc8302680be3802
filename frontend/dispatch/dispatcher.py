"""Owns taking jobs from the store for the Tritons of this process, and keeping them going."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import time
import uuid
from typing import TYPE_CHECKING, Any, Self

import structlog

from frontend.dispatch.job_log import ClaimLostError, JobLog
from frontend.dispatch.lanes import Lanes, LiveJob
from frontend.dispatch.patience import Patience
from frontend.dispatch.work import Work
from frontend.domain.tritons import TritonState
from frontend.errors import (
    BackendError,
    ClosingError,
    ModelCancelledError,
    StoreAwayError,
    TritonDownError,
)
from frontend.jobs.ends import log_freed
from frontend.jobs.rules import CANCELLED_TEXT
from frontend.jobs.schedule import by_triton, known, pixels
from frontend.loop_time import RunningClock
from frontend.supervision import Rounds, supervised_task
from frontend.triton.loading import loading_stage, outage_error
from frontend.waiting import set_within

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from frontend.dispatch.lanes import Lane
    from frontend.domain.jobs import JobEvent
    from frontend.domain.models import EditModelState
    from frontend.jobs.store import Claim, Held, JobStore
    from frontend.settings import Settings
    from frontend.triton.watch import TritonWatch

log = structlog.get_logger()

LEASE_S = 10.0
"""How long a job is its dispatcher's without a sign of life from that, while others reach the
store: see `Sweeper`."""
RENEWAL_S = 1.0
LOOK_BACK_S = 0.2
"""How often a dispatcher that has just started looks whether a former one of its name is silent."""
ANNOUNCE_S = 1.0
STOP_PATIENCE_S = 6.0
"""So long a process that stops still asks a store that is away, besides the time to drain; then the
leases end. It is longer than a database's answer is waited for, so that a second connection is
tried."""


class Dispatcher:
    """Takes jobs from the store, gives each Triton a few at a time, and tells how these stand.

    An asynchronous context manager: jobs move only inside it. On exit, or from `stop` on, it takes
    no more, and those that have not ended after the time to drain wait again.

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
        self._lanes = Lanes(len(watches), settings.max_in_flight, self._clock, self._running_clock)
        self._watches = dict(zip(self._lanes.all, watches, strict=True))
        self._patience = Patience()
        self._work = Work(
            settings,
            store,
            self._lanes,
            self._watches,
            self._patience,
            self._clock,
            self._running_clock,
            self._job_left,
            self._tell,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._stopping: asyncio.Task[None] | None = None
        # The same after a restart, and on one machine nobody else's who listens there.
        self._name = f"{socket.gethostname()}:{settings.port}/"
        # Nobody else's, so that what another process has written is never taken for this one's.
        self._worker = f"{self._name}{uuid.uuid4().hex}"
        self._claiming = asyncio.Lock()
        self._told: list[TritonState] = []
        self._due = 0.0
        self._stir = asyncio.Event()
        self._hints = contextlib.ExitStack()
        self._room: asyncio.Event
        self._cancels: asyncio.Event

    async def __aenter__(self) -> Self:
        self._room = self._hints.enter_context(self._store.work())
        self._cancels = self._hints.enter_context(self._store.cancels())
        await self._ping_all()
        await self._store.announce(self._worker, self._states())
        self._supervisors = (
            supervised_task("edits-clock", self._running_clock.run()),
            supervised_task("edits", self._supervise()),
            supervised_task("edits-leases", self._keep_leases()),
            supervised_task("edits-claims", self._claim_for_ever()),
            supervised_task("edits-announcements", self._announce_for_ever()),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def stop(self) -> asyncio.Task[None]:
        """Take no more jobs, and begin to let go of those that run; return what does that."""
        if self._stopping is None:
            self._closing = True
            self._stir.set()
            self._stopping = asyncio.create_task(self._let_go())
        return self._stopping

    async def _let_go(self) -> None:
        """Let running jobs end or wait again, then leave."""
        patience_s = self._settings.drain_s + STOP_PATIENCE_S
        asyncio.get_running_loop().call_later(patience_s, self._patience.end)
        async with self._claiming:  # a claim that nobody hears of would be lost
            pass
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_s):
                for job in list(self._lanes.running.values()):
                    await job.ended.wait()
        for supervisor in self._supervisors:
            supervisor.cancel()
        # Waiting jobs stay in the store. Running ones go back to it, and Triton must not stop
        # while one runs.
        running = list(self._lanes.running.values())
        grace_s = self._settings.cancel_timeout_s
        await asyncio.gather(
            *(self._work.end_early(job, ClosingError(), grace_s) for job in running)
        )
        # Those that wait for the store do so until the patience is over.
        await asyncio.gather(*self._supervisors, *self._tasks, return_exceptions=True)
        for watch in self._watches.values():
            watch.close()
        self._hints.close()
        # Others notice it by themselves, only later.
        with _store_may_be_away(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANNOUNCE_S):
                await self._store.depart(self._worker)

    def require(self) -> None:
        """Check that this process can run an edit now.

        Raises:
            ClosingError: it is stopping.
            TritonDownError: none of its Tritons can; the detail gives the reason.
        """
        if self._closing:
            raise ClosingError()
        states = self._states()
        if not any(state.ready for state in states):
            raise TritonDownError(states[0].reason)

    # --- claiming ---

    async def _claim_for_ever(self) -> None:
        """Start waiting jobs whenever Triton may have more."""
        rounds = Rounds("edits-claims")
        while True:
            self._room.clear()
            with rounds.one(), _store_may_be_away():
                await self._claim_all()
            await set_within(self._room, self._settings.ping_interval_s)

    async def _claim_all(self) -> None:
        for lane, watch in self._watches.items():
            lane.ready = watch.state is not None and not lane.full
        while free := self._lanes.free():
            if free.running and not await self._is_more_than_others_take():
                return
            async with self._claiming:
                if self._closing or not await self._claim(free):
                    return

    async def _is_more_than_others_take(self) -> bool:
        """Return whether a busy Triton may have another job: idle ones of others come first."""
        view = await self._store.view()
        idle = sum(
            all(each.worker != self._worker for each in of_one)
            and any(each.state.ready for each in of_one)
            and not any(each.state.running for each in of_one)
            for of_one in by_triton(view)
        )
        return len(view.waiting) > idle

    async def _claim(self, lane: Lane) -> bool:
        """Start the next waiting job on a lane; return False if there is none."""
        state = self._watches[lane].state
        if state is None:  # since a moment ago
            return False
        claim = await self._store.claim(self._worker, state.adapters, LEASE_S)
        if claim is None:
            return False
        job = self._live(claim, state)
        self._lanes.start(job, lane)
        self._stir.set()
        self._in_background(self._work.run(job, claim))
        return True

    def _live(self, claim: Claim, state: EditModelState) -> LiveJob:
        queued = claim.last[1]
        job = LiveJob(
            claim.job_id,
            queued.total_steps,
            pixels(queued.size, state.image_area),
            size=queued.size,
            task_type=claim.task_type,
            queued_seconds=time.time() - queued.at,
            request_id=claim.request_id,
        )
        job.log = JobLog(self._store, claim, self._patience)
        return job

    def _job_left(self) -> None:
        self._room.set()
        self._stir.set()

    # --- telling others ---

    async def _announce_for_ever(self) -> None:
        """Tell others how the Tritons stand: once a second, and when that has changed."""
        rounds = Rounds("edits-announcements")
        while True:
            self._stir.clear()
            with rounds.one():
                # Without how far the jobs are, which is always news, and what follows from it.
                news = [
                    dataclasses.replace(
                        each, running=dict.fromkeys(each.running), seconds_per_unit=None
                    )
                    for each in self._states()
                ]
                if news != self._told or self._clock() >= self._due:
                    self._told, self._due = news, self._clock() + ANNOUNCE_S
                    await self._tell()
            await set_within(self._stir, ANNOUNCE_S)

    async def _tell(self) -> None:
        with _store_may_be_away():
            await self._store.announce(self._worker, self._states())

    def _states(self) -> list[TritonState]:
        up = all(watch.state for watch in self._watches.values())
        stage = None if up else loading_stage(self._settings.loading_file)
        states = []
        for url, (lane, watch) in zip(
            self._settings.advertised_grpc_urls, self._watches.items(), strict=True
        ):
            state = watch.state
            if self._closing:
                reason = ClosingError().detail
            else:
                reason = "" if state else outage_error(watch.reason, stage).detail
            states.append(
                TritonState(
                    url=url,
                    places=self._settings.max_in_flight,
                    reason=reason,
                    loading=None if state else stage,
                    bundle=state.bundle if state else "",
                    adapters=tuple(sorted(state.adapters)) if state else (),
                    image_area=state.image_area if state else None,
                    seconds_per_unit=self._lanes.seconds_per_unit,
                    taken_by=lane.taken_by.rsplit(".", 1)[0],
                    running={
                        job.job_id: known(self._lanes.own_seconds(job))
                        for job in lane.running.values()
                    },
                )
            )
        return states

    # --- faults ---

    async def _keep_leases(self) -> None:
        """Show the store that this process lives, and hear which of its jobs are to end."""
        rounds = Rounds("edits-leases")
        started_at = renewed_at = self._clock()
        while True:
            # Later there is nothing of a former worker's: its leases are over.
            if starting := self._clock() - started_at < LEASE_S:
                with rounds.one(), _store_may_be_away():
                    await self._take_back()
            hinted = await set_within(self._cancels, LOOK_BACK_S if starting else RENEWAL_S)
            if starting and not hinted and self._clock() - renewed_at < RENEWAL_S:
                continue
            self._cancels.clear()
            running = [job for job in self._lanes.running.values() if not job.lost]
            # A store that is away takes no job from this process: nobody can begin one anew without
            # it. What another process has begun meanwhile, the first answer tells.
            with rounds.one(), _store_may_be_away():
                held = await self._store.renew([job.log.claim for job in running], LEASE_S)
                renewed_at = self._clock()
                self._heed({f"{each.job_id}.{each.attempt}": each for each in held}, running)

    async def _take_back(self) -> None:
        """Let the jobs go on that this process had before it was killed and started again."""
        for freed in await self._store.take_back(self._name, self._worker):
            log.warning("job_taken_back", task_id=freed.job_id)
            log_freed(freed)

    def _heed(self, held: dict[str, Held], running: list[LiveJob]) -> None:
        """Stop running jobs that this process has lost, and those whose clients want that."""
        for job in running:
            if job.leaving:  # what it writes tells it as much
                continue
            if (hold := held.get(job.request_id)) is None:
                self._in_background(self._work.abandon(job))
            elif hold.cancel_asked and job.end_reason is None:
                reason = ModelCancelledError(CANCELLED_TEXT)
                self._in_background(
                    self._work.end_early(job, reason, self._settings.cancel_grace_s)
                )

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
                await self._react()
            await asyncio.sleep(next_ping - self._clock())

    async def _ping_all(self) -> None:
        await asyncio.gather(*(watch.ping() for watch in self._watches.values()))

    async def _react(self) -> None:
        for lane, watch in self._watches.items():
            # It may hold the engine for as long as it takes, and no job of ours has its turn yet.
            if watch.state is not None and _is_for_others(lane, watch.state):
                lane.turn_at = self._running_clock()
        for silent in self._lanes.silent(self._settings.silence_timeout_s):
            # Whose event waits for the store, is not listened to.
            if silent.stream and not silent.log.writing and not self._is_at_work(silent):
                silent.stream.cut(BackendError("the model stopped responding"))
        for overdue in self._lanes.overdue(self._settings.job_timeout_s):
            # Whose event waits for the store, may have ended long ago.
            if overdue.end_reason is None and not overdue.log.writing:
                reason = BackendError("the model did not finish in time")
                self._in_background(
                    self._work.end_early(overdue, reason, self._settings.cancel_grace_s)
                )
        self._note_work()
        for lane, watch in self._watches.items():
            if watch.requests_lost:
                for job in lane.running.values():
                    if job.stream is not None:
                        job.stream.cut(TritonDownError(watch.reason))
            elif watch.state and watch.state.waiting < watch.state.max_queue_size:
                lane.full = False
        self._room.set()
        self._stir.set()

    def _is_at_work(self, job: LiveJob) -> bool:
        """Return whether a silent job is only slow: the engine passes from layer to layer."""
        state = self._work.watch_of(job).state
        return (
            state is not None
            and state.running_id == job.request_id
            and state.quiet_seconds <= self._settings.silence_timeout_s
        )

    def _note_work(self) -> None:
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
                    # Not awaited: Triton is pinged also while the store is away.
                    self._in_background(self._append(job, self._work.running_event(job, job.last)))

    async def _append(self, job: LiveJob, event: JobEvent) -> None:
        with contextlib.suppress(ClaimLostError), _store_may_be_away():
            await job.log.append(event)


def _is_for_others(lane: Lane, state: EditModelState) -> bool:
    """Return whether an engine works on an edit that is none of its lane's jobs."""
    return bool(state.running) and not any(
        job.engine_since is not None or job.request_id == state.running_id
        for job in lane.running.values()
    )


@contextlib.contextmanager
def _store_may_be_away() -> Iterator[None]:
    """Let what needs the store be tried in the next round."""
    try:
        yield
    except StoreAwayError as error:
        log.warning("store_away", reason=error.reason)
