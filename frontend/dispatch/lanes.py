"""Owns what each Triton of this process runs, and how long that takes."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.dispatch.job_log import JobLog
    from frontend.domain.edits import EditProgress, Size
    from frontend.errors import ServingError
    from frontend.triton.stream import InferStream

# High, because the next job is more like the newest one than like the average.
NEWEST_WEIGHT = 0.5
# More than one Triton has at a time.
MAX_ENDED = 64


@dataclass(eq=False)
class Lane:
    """One Triton's engine, which runs its jobs one after the other."""

    turn_at: float
    """When a job last left this engine, or another client's edit was last seen on it; seconds of
    the lanes' running clock."""
    ready: bool = True
    """Whether a job may be started here now."""
    full: bool = False
    """Whether Triton has refused a job because its queue was full, and may do so again."""
    alone: bool = False
    """Whether the next job has to be alone here, because Triton's shared memory did not hold one
    beside another."""
    running: dict[str, LiveJob] = field(default_factory=dict)
    """Jobs by request_id, in the order of their start."""
    ended: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_ENDED))
    """Triton's ids of the jobs that have left this engine, the newest last."""
    suspect: str = ""
    """The ended job that the engine worked on at the last ping."""
    taken_by: str = ""
    """The ended job that the engine has worked on at two pings in a row."""

    def note_work(self, running_id: str) -> bool:
        """Take note of what the engine works on, at each ping.

        One ping proves nothing, because the job may have ended since the engine answered it.

        Returns:
            Whether `taken_by` has changed.
        """
        suspect = running_id if running_id in self.ended else ""
        taken_by = suspect if suspect == self.suspect else ""
        changed = taken_by != self.taken_by
        self.suspect, self.taken_by = suspect, taken_by
        return changed


@dataclass(eq=False)
class LiveJob:
    """A job that has not ended."""

    job_id: str
    """The id under which the store knows it."""
    steps: int
    """Denoising steps of the job."""
    pixels: int
    """Pixels that each step computes: at most so many, until the model has said how many."""
    size: Size | None = None
    """Of the answer, if known."""
    computed_sizes: tuple[Size, ...] | None = None
    """Of the parts that the model computes, once it has said so."""
    task_type: str = ""
    """The kind of edit; for the log."""
    queued_seconds: float = 0.0
    """How long it has waited."""
    started_at: float = 0.0
    """When it was claimed; seconds of the lanes' clock."""
    end_reason: ServingError | None = None
    """Why it ends early, once that is known."""
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once `end_reason` or `lost` is."""
    request_id: str = ""
    """What Triton calls it, once it has been sent there."""
    leaving: bool = False
    """Whether its end, or that it waits again, is being written: from then on it may be held no
    more."""
    lost: bool = False
    """Whether another process may have it."""
    alone: bool = False
    """Whether it was sent to a Triton that had no other job of this process."""
    lane: Lane | None = None
    """The engine that runs it."""
    log: JobLog = field(init=False, repr=False)
    """Where its events go, once it has been claimed."""
    stream: InferStream | None = None
    """Its responses, once it has been sent to Triton."""
    last: EditProgress | None = None
    """The newest response."""
    heard_at: float = 0.0
    """When `last` came, or else when the job was sent; seconds of the lanes' running clock."""
    expected_seconds: float | None = None
    """From `engine_since` to the job's end, as the model expects it."""
    engine_since: float | None = None
    """When the engine began to work on it; seconds of the lanes' clock."""
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the model has answered and so knows the job_id, and at the job's end."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the job's end."""

    def hear(self, update: EditProgress, now: float, running_now: float) -> None:
        """Take note of a response; `now` and `running_now` are the times of the lanes' clocks."""
        self.last, self.heard_at = update, running_now
        if update.plan is not None:
            self.pixels, self.size = update.plan.pixels, update.plan.size
            self.computed_sizes = update.plan.computed_sizes
            self.expected_seconds = update.plan.expected_seconds
        if self.engine_since is None and not update.stage.before_engine:
            self.engine_since = now


class Lanes:
    """The engines of this process, and their running jobs.

    Args:
        count: number of engines.
        max_running: maximum number of running jobs of one engine.
        clock: the time in seconds; only differences count.
        running_clock: the same without the time in which this process stood still, in which it
            would have heard nothing.
    """

    def __init__(
        self,
        count: int,
        max_running: int,
        clock: Callable[[], float],
        running_clock: Callable[[], float] | None = None,
    ) -> None:
        self._max_running = max_running
        self._clock = clock
        self._running_clock = running_clock or clock
        self._seconds_per_unit = math.nan  # a unit is one step of one pixel
        self.all = [Lane(self._running_clock()) for _ in range(count)]
        self.running: dict[str, LiveJob] = {}
        """Jobs by request_id: of one job an attempt that was lost may still be ending."""

    @property
    def seconds_per_unit(self) -> float | None:
        """What one step of one pixel takes; None if no step was measured yet."""
        pace = self._pace()
        return None if math.isnan(pace) else pace

    def free(self) -> Lane | None:
        """Return the idlest of the lanes that may have another job; None if none may."""
        free = [lane for lane in self.all if lane.ready and len(lane.running) < self._most(lane)]
        return min(free, key=lambda lane: len(lane.running), default=None)

    def _most(self, lane: Lane) -> int:
        return 1 if lane.alone else self._max_running

    def start(self, job: LiveJob, lane: Lane) -> None:
        """Give `job` to `lane`."""
        self.running[job.request_id] = job
        job.lane, lane.running[job.request_id] = lane, job
        job.alone = lane.alone
        job.started_at = self._clock()

    def leave(self, job: LiveJob) -> None:
        """Take `job` out, and wake what waits for its end."""
        assert job.lane is not None, "it has started"
        self.running.pop(job.request_id, None)
        job.lane.running.pop(job.request_id, None)
        job.lane.ended.append(job.request_id)
        job.lane.turn_at = self._running_clock()
        job.accepted.set()
        job.ended.set()

    def learn(self, job: LiveJob) -> None:
        """Improve later estimates by a job that has just been done."""
        if job.engine_since is not None:
            newest = (self._clock() - job.engine_since) / (job.steps * job.pixels)
            known = newest if math.isnan(self._seconds_per_unit) else self._seconds_per_unit
            self._seconds_per_unit = known + NEWEST_WEIGHT * (newest - known)

    def silent(self, longest_s: float) -> list[LiveJob]:
        """Return the running jobs that have been silent for longer than `longest_s`.

        Of each lane only one job has to respond: the one that the engine works on, or else the
        oldest. The others may be waiting for it.
        """
        silent = []
        for lane in self.all:
            running = list(lane.running.values())
            on_engine = [job for job in running if job.engine_since is not None]
            for job in (on_engine or running)[:1]:
                if self._running_clock() - max(job.heard_at, lane.turn_at) > longest_s:
                    silent.append(job)
        return silent

    def overdue(self, longest_s: float) -> list[LiveJob]:
        """Return the running jobs that engines have worked on for longer than `longest_s`."""
        return [
            job
            for job in self.running.values()
            if job.engine_since is not None and self._clock() - job.engine_since > longest_s
        ]

    def seconds_left(self, job: LiveJob) -> float:
        """Return the seconds until a running job is done; NaN if unknown."""
        assert job.lane is not None, "it has started"
        seconds = 0.0
        for each in job.lane.running.values():
            seconds += self.own_seconds(each)
            if each is job:
                break
        return seconds

    def own_seconds(self, job: LiveJob) -> float:
        """Return the seconds that a job still needs of the engine; NaN if unknown."""
        if job.engine_since is None or job.last is None:
            return self._pace() * job.steps * job.pixels
        if not math.isnan(whole := self._whole_seconds(job)):
            return whole * (1 - job.last.progress)
        elapsed = self._clock() - job.engine_since
        # No step has been measured. An estimate that has run out says nothing any more.
        expected = job.expected_seconds
        return math.nan if expected is None or expected <= elapsed else expected - elapsed

    def _pace(self) -> float:
        """Return what one step of one pixel takes; NaN if unknown."""
        if not math.isnan(self._seconds_per_unit):
            return self._seconds_per_unit
        # Before the first job is done, one that has come some way tells.
        for job in self.running.values():
            if not math.isnan(whole := self._whole_seconds(job)):
                return whole / (job.steps * job.pixels)
        return math.nan

    def _whole_seconds(self, job: LiveJob) -> float:
        """Return what the engine takes for a job, by its steps so far; NaN before the first."""
        last = job.last
        if job.engine_since is None or last is None or not last.step or last.progress <= 0:
            return math.nan
        return (self._clock() - job.engine_since) / last.progress
