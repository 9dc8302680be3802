"""Owns the order of the jobs that have not ended: which wait, which run, and for how long."""

from __future__ import annotations

import asyncio
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frontend.domain.edits import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from frontend.domain.edits import EditProgress
    from frontend.errors import ServingError
    from frontend.triton.stream import InferStream

# In these stages a job waits for the engine and sends nothing.
BEFORE_ENGINE = (Stage.LOADING, Stage.CONDITIONING)
# High, because the next job is more like the newest one than like the average.
NEWEST_WEIGHT = 0.5


@dataclass(eq=False)
class Lane:
    """One Triton's engine, which runs its jobs one after the other."""

    turn_at: float
    """When a job last left this engine; seconds of the queue's clock."""
    ready: bool = True
    """Whether the queue may start a job here now."""
    full: bool = False
    """Whether Triton has refused a job for lack of room, and may do so again."""
    running: dict[str, LiveJob] = field(default_factory=dict)
    """Jobs by job_id, in the order of their start."""


@dataclass(eq=False)
class LiveJob:
    """A job that has not ended."""

    job_id: str
    """The id under which the store knows it."""
    steps: int
    """Denoising steps of the job."""
    number: int = 0
    """Its number in the order of entering."""
    position: int = 0
    """1 for the next to start."""
    startable: bool = False
    """Whether the store has it and no client has cancelled it."""
    end_reason: ServingError | None = None
    """Why it ends early, once that is known."""
    starts: int = 0
    """How often it has been sent to a Triton."""
    lane: Lane | None = None
    """The engine that runs it."""
    stream: InferStream | None = None
    """Its responses, once it has been sent to Triton."""
    last: EditProgress | None = None
    """The newest response."""
    heard_at: float = 0.0
    """When `last` came, or else when the job was sent; seconds of the queue's clock."""
    engine_since: float | None = None
    """When the engine began to work on it; seconds of the queue's clock."""
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the model has answered and so knows the job_id, and at the job's end."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the job's end."""

    def hear(self, update: EditProgress, now: float) -> None:
        """Take note of a response."""
        self.last, self.heard_at = update, now
        if self.engine_since is None and update.stage not in BEFORE_ENGINE:
            self.engine_since = now


class JobQueue:
    """Edits in the order of their start.

    Args:
        max_waiting: maximum number of waiting jobs.
        max_running: maximum number of running jobs of one lane.
        clock: the time in seconds; only differences count.
        lanes: number of engines.
    """

    def __init__(
        self, max_waiting: int, max_running: int, clock: Callable[[], float], lanes: int = 1
    ) -> None:
        self._max_waiting = max_waiting
        self._max_running = max_running
        self._clock = clock
        self._seconds_per_step = math.nan
        self._numbers = itertools.count()
        self.lanes = [Lane(clock()) for _ in range(lanes)]
        self.waiting: dict[str, LiveJob] = {}
        self.running: dict[str, LiveJob] = {}

    @property
    def full(self) -> bool:
        """Whether no further job may enter."""
        return len(self.waiting) >= self._max_waiting

    def enter(self, job: LiveJob) -> None:
        """Put `job` at the end."""
        self.waiting[job.job_id] = job
        job.number = next(self._numbers)
        job.position = len(self.waiting)

    def start_next(self) -> LiveJob | None:
        """Give the first startable job to the idlest lane; return it, or None."""
        ready = [lane for lane in self.lanes if lane.ready]
        lane = min(ready, key=lambda lane: len(lane.running), default=None)
        if lane is None or len(lane.running) >= self._max_running:
            return None
        for job in self.waiting.values():
            if job.startable:
                self.running[job.job_id] = self.waiting.pop(job.job_id)
                job.lane, lane.running[job.job_id] = lane, job
                job.starts += 1
                return job
        return None

    def put_back(self, job: LiveJob) -> None:
        """Return `job`, which Triton has not accepted, to its place among the waiting."""
        del self.running[job.job_id]
        assert job.lane is not None, "it has not started"
        del job.lane.running[job.job_id]
        job.lane = job.stream = None
        job.position = 0  # none: so moved_up announces it again
        in_order = sorted([job, *self.waiting.values()], key=lambda job: job.number)
        self.waiting = {job.job_id: job for job in in_order}

    def leave(self, job: LiveJob) -> None:
        """Take `job` out, wherever it is, and wake what waits for its end."""
        self.waiting.pop(job.job_id, None)
        self.running.pop(job.job_id, None)
        if job.lane:
            job.lane.running.pop(job.job_id, None)
            job.lane.turn_at = self._clock()
        job.accepted.set()
        job.ended.set()

    def learn(self, job: LiveJob) -> None:
        """Improve later estimates by a job that has just been done."""
        if job.engine_since is not None:
            newest = (self._clock() - job.engine_since) / job.steps
            known = newest if math.isnan(self._seconds_per_step) else self._seconds_per_step
            self._seconds_per_step = known + NEWEST_WEIGHT * (newest - known)

    def silent(self, longest_s: float) -> list[LiveJob]:
        """Return the running jobs that have been silent for longer than `longest_s`.

        Of each lane only one job has to respond: the one that the engine works on, or else the
        oldest. The others may be waiting for it.
        """
        silent = []
        for lane in self.lanes:
            running = list(lane.running.values())
            on_engine = [job for job in running if job.engine_since is not None]
            for job in (on_engine or running)[:1]:
                if self._clock() - max(job.heard_at, lane.turn_at) > longest_s:
                    silent.append(job)
        return silent

    def seconds_left(self, job: LiveJob) -> float:
        """Return the seconds until `job` is done; NaN if unknown."""
        return next(seconds for each, seconds in self._schedule() if each is job)

    def moved_up(self) -> list[tuple[LiveJob, float]]:
        """Return the waiting jobs whose position has changed, with their `seconds_left`."""
        moved = []
        for position, (job, seconds) in enumerate(self._schedule(), 1 - len(self.running)):
            if position > 0 and job.position != position:
                job.position = position
                moved.append((job, seconds))
        return moved

    def _schedule(self) -> Iterator[tuple[LiveJob, float]]:
        now = self._clock()
        working = [lane for lane in self.lanes if lane.ready or lane.running]
        busy = dict.fromkeys(working or self.lanes, 0.0)
        for job in itertools.chain(self.running.values(), self.waiting.values()):
            lane = job.lane or min(busy, key=lambda lane: busy[lane])
            busy[lane] += self._own_seconds(job, now)
            yield job, busy[lane]

    def _own_seconds(self, job: LiveJob, now: float) -> float:
        if job.engine_since is None or job.last is None or job.last.progress <= 0:
            return self._seconds_per_step * job.steps
        return (now - job.engine_since) * (1 - job.last.progress) / job.last.progress
