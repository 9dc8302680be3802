"""Owns the order of the jobs that have not ended: who waits, who runs, and how long it takes."""

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

# Stages in which a job waits for its turn on the engine, silently.
BEFORE_ENGINE = (Stage.LOADING, Stage.CONDITIONING)
# Weight of the newest job in the pace: high, as jobs differ by size more than by time of day.
NEWEST_WEIGHT = 0.5


@dataclass(eq=False)
class Lane:
    """One engine, which runs its jobs one after the other.

    Attributes:
        turn_at: when a job last left it; seconds of the queue's clock.
        ready: whether it may be given jobs now.
        full: whether it has refused one, and may do so again.
        running: by job_id, in the order of their start.
    """

    turn_at: float
    ready: bool = True
    full: bool = False
    running: dict[str, LiveJob] = field(default_factory=dict)


@dataclass(eq=False)
class LiveJob:
    """A job that has not ended.

    Attributes:
        job_id: its job.
        steps: denoising steps.
        number: in the order of entering.
        position: 1 for the next to start.
        startable: its job is in the store, and no cancel has been asked for.
        end_reason: what ends it before its time, once that is known.
        starts: how often it has been given to Triton.
        lane: where it runs.
        stream: its responses, once it has been given to Triton.
        last: the newest response.
        heard_at: when that came, or when it was given to Triton; seconds of the queue's clock.
        engine_since: when the engine began to work on it.
        accepted: set when the model has answered, and so knows its job_id, and at its end.
        ended: set at its end.
    """

    job_id: str
    steps: int
    number: int = 0
    position: int = 0
    startable: bool = False
    end_reason: ServingError | None = None
    starts: int = 0
    lane: Lane | None = None
    stream: InferStream | None = None
    last: EditProgress | None = None
    heard_at: float = 0.0
    engine_since: float | None = None
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, update: EditProgress, now: float) -> None:
        """Take note of a response."""
        self.last, self.heard_at = update, now
        if self.engine_since is None and update.stage not in BEFORE_ENGINE:
            self.engine_since = now


class JobQueue:
    """Edits in the order of their start.

    Args:
        max_waiting: most jobs that wait.
        max_running: most jobs of a lane.
        clock: the time in seconds; only differences count.
        lanes: how many engines there are.
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
        """Give the first job that may start to the idlest lane and return it, if there is one."""
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
        """Have `job`, which was started and not taken, wait where it had been."""
        del self.running[job.job_id]
        assert job.lane is not None, "it has not started"
        del job.lane.running[job.job_id]
        job.lane = job.stream = None
        job.position = 0  # it has to be told anew
        in_order = sorted([job, *self.waiting.values()], key=lambda job: job.number)
        self.waiting = {job.job_id: job for job in in_order}

    def leave(self, job: LiveJob) -> None:
        """Take `job` out, wherever it is, and tell whoever waits for its end."""
        self.waiting.pop(job.job_id, None)
        self.running.pop(job.job_id, None)
        if job.lane:
            job.lane.running.pop(job.job_id, None)
            job.lane.turn_at = self._clock()
        job.accepted.set()
        job.ended.set()

    def learn(self, job: LiveJob) -> None:
        """Let later estimates profit from a job that has just got through."""
        if job.engine_since is not None:
            newest = (self._clock() - job.engine_since) / job.steps
            known = newest if math.isnan(self._seconds_per_step) else self._seconds_per_step
            self._seconds_per_step = known + NEWEST_WEIGHT * (newest - known)

    def silent(self, longest_s: float) -> list[LiveJob]:
        """Return the running jobs that have been silent for longer than `longest_s`.

        Only one of a lane owes a sign of life, the one that the engine works on or else the
        oldest: the others may be waiting for it.
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
        """Return how long it will take until `job` is done; NaN where that is unknown."""
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
