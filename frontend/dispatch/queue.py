"""Owns the order of the jobs that have not ended: which wait, which run, and for how long."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frontend import shares
from frontend.domain.edits import Stage
from frontend.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from frontend.dispatch.job_log import JobLog
    from frontend.domain.edits import EditProgress, Size
    from frontend.domain.owners import Owner
    from frontend.errors import ServingError
    from frontend.triton.stream import InferStream

# In these stages a job waits for the engine and sends nothing.
BEFORE_ENGINE = (Stage.LOADING, Stage.CONDITIONING)
# High, because the next job is more like the newest one than like the average.
NEWEST_WEIGHT = 0.5
# More than one Triton has at a time.
MAX_ENDED = 64


@dataclass(eq=False)
class Lane:
    """One Triton's engine, which runs its jobs one after the other."""

    turn_at: float
    """When a job last left this engine; seconds of the queue's running clock."""
    ready: bool = True
    """Whether the queue may start a job here now."""
    full: bool = False
    """Whether Triton has refused a job because its queue was full, and may do so again."""
    running: dict[str, LiveJob] = field(default_factory=dict)
    """Jobs by job_id, in the order of their start."""
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
    owner: str
    """The name of its owner."""
    max_running: int | None = None
    """Jobs that its owner may have running; None: no bound."""
    turn: int = 0
    """The number of its owner's turn with which it was started."""
    size: Size | None = None
    """Of the answer, if known."""
    computed_sizes: tuple[Size, ...] | None = None
    """Of the parts that the model computes, once it has said so."""
    task_type: str = ""
    """The kind of edit; for the log."""
    entered_at: float = 0.0
    """When it was queued; seconds of the queue's clock."""
    started_at: float | None = None
    """When it was last sent to a Triton, unless it waits again; the same clock."""
    number: int = 0
    """Its number in the store, which is the order of starts."""
    end_reason: ServingError | None = None
    """Why it ends early, once that is known."""
    request_id: str = ""
    """What Triton calls it, once it has been sent there."""
    lost: bool = False
    """Whether another process may have it."""
    lane: Lane | None = None
    """The engine that runs it."""
    log: JobLog = field(init=False, repr=False)
    """Where its events go, once it has been claimed."""
    stream: InferStream | None = None
    """Its responses, once it has been sent to Triton."""
    last: EditProgress | None = None
    """The newest response."""
    heard_at: float = 0.0
    """When `last` came, or else when the job was sent; seconds of the queue's running clock."""
    expected_seconds: float | None = None
    """From `engine_since` to the job's end, as the model expects it."""
    engine_since: float | None = None
    """When the engine began to work on it; seconds of the queue's clock."""
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the model has answered and so knows the job_id, and at the job's end."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the job's end."""

    def hear(self, update: EditProgress, now: float, running_now: float) -> None:
        """Take note of a response; `now` and `running_now` are the times of the queue's clocks."""
        self.last, self.heard_at = update, running_now
        if update.plan is not None:
            self.pixels, self.size = update.plan.pixels, update.plan.size
            self.computed_sizes = update.plan.computed_sizes
            self.expected_seconds = update.plan.expected_seconds
        if self.engine_since is None and update.stage not in BEFORE_ENGINE:
            self.engine_since = now


class JobQueue:
    """Edits that wait and run. Owners take turns, and the jobs of one owner start in their order.

    Whose turn it is decides the store. This works out what it is going to decide.

    Args:
        max_waiting: maximum number of waiting jobs.
        max_running: maximum number of running jobs of one lane.
        clock: the time in seconds; only differences count.
        lanes: number of engines.
        running_clock: the same without the time in which this process stood still, in which it
            would have heard nothing.
    """

    def __init__(
        self,
        max_waiting: int,
        max_running: int,
        clock: Callable[[], float],
        lanes: int = 1,
        running_clock: Callable[[], float] | None = None,
    ) -> None:
        self._max_waiting = max_waiting
        self._max_running = max_running
        self._clock = clock
        self._running_clock = running_clock or clock
        self._seconds_per_unit = math.nan  # a unit is one step of one pixel
        self.lanes = [Lane(self._running_clock()) for _ in range(lanes)]
        self.waiting: dict[str, LiveJob] = {}
        self.turns: dict[str, int] = {}
        """The number of each owner's last turn, as far as it is known."""
        self.running: dict[str, LiveJob] = {}

    def check(self, owner: Owner) -> None:
        """Check that one more job of this owner may enter.

        Raises:
            UnavailableError: too many jobs wait.
            TooMuchError: too many of this owner do.
        """
        if len(self.waiting) >= self._max_waiting:
            raise UnavailableError("The queue is full")
        own = sum(job.owner == owner.name for job in self.waiting.values())
        shares.check_waiting(owner, own)

    def enter(self, job: LiveJob) -> None:
        """Put `job` to its place among its owner's."""
        job.entered_at = self._clock()
        in_order = sorted([*self.waiting.values(), job], key=lambda job: job.number)
        self.waiting = {job.job_id: job for job in in_order}

    def free_lane(self) -> Lane | None:
        """Return the idlest of the lanes that may have another job; None if none may."""
        ready = [lane for lane in self.lanes if lane.ready]
        lane = min(ready, key=lambda lane: len(lane.running), default=None)
        return lane if lane is not None and len(lane.running) < self._max_running else None

    def start(self, job: LiveJob, lane: Lane, turn: int) -> None:
        """Give `job` to `lane`, by its owner's turn of this number."""
        job.turn = self.turns[job.owner] = turn
        self.waiting.pop(job.job_id, None)
        self.running[job.job_id] = job
        job.lane, lane.running[job.job_id] = lane, job
        job.started_at = self._clock()

    def leave(self, job: LiveJob) -> None:
        """Take `job` out, wherever it is, and wake what waits for its end."""
        if self.waiting.get(job.job_id) is job:
            del self.waiting[job.job_id]
        if job.lane:
            self.running.pop(job.job_id, None)
            job.lane.running.pop(job.job_id, None)
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

    def expected_seconds(self, steps: int, pixels: int) -> float:
        """Return the seconds that an idle engine takes for a job; NaN if unknown."""
        return self._seconds_per_unit * steps * pixels

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
                if self._running_clock() - max(job.heard_at, lane.turn_at) > longest_s:
                    silent.append(job)
        return silent

    def seconds_left(self, job: LiveJob) -> float:
        """Return the seconds until `job` is done; NaN if unknown."""
        return next(seconds for each, seconds in self._schedule() if each is job)

    def standings(self) -> dict[str, tuple[int, float]]:
        """Return the position and `seconds_left` of each waiting job."""
        places = enumerate(self._schedule(), 1 - len(self.running))
        return {
            job.job_id: (position, seconds) for position, (job, seconds) in places if position > 0
        }

    def outlook(self, job: LiveJob) -> tuple[int, float]:
        """Return the position and `seconds_left` that `job` would have as its owner's last."""
        job.number = max((each.number for each in self.waiting.values()), default=0) + 1
        self.enter(job)
        try:
            return self.standings()[job.job_id]
        finally:
            del self.waiting[job.job_id]

    def _schedule(self) -> Iterator[tuple[LiveJob, float]]:
        now = self._clock()
        working = [lane for lane in self.lanes if lane.ready or lane.running]
        busy = dict.fromkeys(working or self.lanes, 0.0)
        for job in itertools.chain(self.running.values(), self._in_turn()):
            lane = job.lane or min(busy, key=lambda lane: busy[lane])
            busy[lane] += self._own_seconds(job, now)
            yield job, busy[lane]

    def _in_turn(self) -> Iterator[LiveJob]:
        """Yield the waiting jobs in the order of their start, if no other comes.

        Running jobs are taken to end in the order of their start.
        """
        queues: dict[str, deque[LiveJob]] = {}
        for job in self.waiting.values():
            queues.setdefault(job.owner, deque()).append(job)
        turns = [(self.turns.get(owner, 0), place, owner) for place, owner in enumerate(queues)]
        heapq.heapify(turns)
        next_turn = itertools.count(max(self.turns.values(), default=0) + 1)
        running = deque(job.owner for job in self.running.values())
        counts = Counter(running)
        places = len(self.lanes) * self._max_running
        busy: dict[str, tuple[int, int, str]] = {}
        while turns or busy:
            if not turns or len(running) >= places:
                ended = running.popleft()
                counts[ended] -= 1
                if ended in busy:
                    heapq.heappush(turns, busy.pop(ended))
                continue
            turn = heapq.heappop(turns)
            owner = turn[-1]
            job = queues[owner][0]
            if job.max_running is not None and counts[owner] >= job.max_running:
                busy[owner] = turn
                continue
            queues[owner].popleft()
            running.append(owner)
            counts[owner] += 1
            if queues[owner]:
                heapq.heappush(turns, (next(next_turn), 0, owner))
            yield job

    def _own_seconds(self, job: LiveJob, now: float) -> float:
        if job.engine_since is None or job.last is None:
            return self.expected_seconds(job.steps, job.pixels)
        elapsed = now - job.engine_since
        if job.last.step and job.last.progress > 0:
            return elapsed * (1 - job.last.progress) / job.last.progress
        # No step has been measured. An estimate that has run out says nothing any more.
        expected = job.expected_seconds
        return math.nan if expected is None or expected <= elapsed else expected - elapsed
