"""Owns the order of the edits that have not ended: who waits, who runs, and how long it takes."""

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
    """One engine, which runs its edits one after the other.

    Attributes:
        turn_at: when an edit last left it; seconds of the queue's clock.
        ready: whether it may be given edits now.
        full: whether it has refused one, and may do so again.
        running: by task_id, in the order of their start.
    """

    turn_at: float
    ready: bool = True
    full: bool = False
    running: dict[str, Edit] = field(default_factory=dict)


@dataclass(eq=False)
class Edit:
    """An edit that has not ended.

    Attributes:
        task_id: its job.
        steps: denoising steps.
        number: in the order of entering.
        position: 1 for the next to start.
        startable: its job is in the store, and no cancel has been asked for.
        stopped_by: what ends it before its time, once that is known.
        starts: how often it has been given to Triton.
        lane: where it runs.
        stream: its responses, once it has been given to Triton.
        last: the newest response.
        heard_at: when that came, or when it was given to Triton; seconds of the queue's clock.
        engine_since: when the engine began to work on it.
        accepted: set when the model has answered, and so knows its task_id, and at its end.
        ended: set at its end.
    """

    task_id: str
    steps: int
    number: int = 0
    position: int = 0
    startable: bool = False
    stopped_by: ServingError | None = None
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


class EditQueue:
    """Edits in the order of their start.

    Args:
        max_waiting: most edits that wait.
        max_running: most edits of a lane.
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
        self.waiting: dict[str, Edit] = {}
        self.running: dict[str, Edit] = {}

    @property
    def full(self) -> bool:
        """Whether no further edit may enter."""
        return len(self.waiting) >= self._max_waiting

    def enter(self, edit: Edit) -> None:
        """Put `edit` at the end."""
        self.waiting[edit.task_id] = edit
        edit.number = next(self._numbers)
        edit.position = len(self.waiting)

    def start_next(self) -> Edit | None:
        """Give the first edit that may start to the idlest lane and return it, if there is one."""
        ready = [lane for lane in self.lanes if lane.ready]
        lane = min(ready, key=lambda lane: len(lane.running), default=None)
        if lane is None or len(lane.running) >= self._max_running:
            return None
        for edit in self.waiting.values():
            if edit.startable:
                self.running[edit.task_id] = self.waiting.pop(edit.task_id)
                edit.lane, lane.running[edit.task_id] = lane, edit
                edit.starts += 1
                return edit
        return None

    def put_back(self, edit: Edit) -> None:
        """Have `edit`, which was started and not taken, wait where it had been."""
        del self.running[edit.task_id]
        assert edit.lane is not None, "it has not started"
        del edit.lane.running[edit.task_id]
        edit.lane = edit.stream = None
        edit.position = 0  # it has to be told anew
        in_order = sorted([edit, *self.waiting.values()], key=lambda edit: edit.number)
        self.waiting = {edit.task_id: edit for edit in in_order}

    def leave(self, edit: Edit) -> None:
        """Take `edit` out, wherever it is, and tell whoever waits for its end."""
        self.waiting.pop(edit.task_id, None)
        self.running.pop(edit.task_id, None)
        if edit.lane:
            edit.lane.running.pop(edit.task_id, None)
            edit.lane.turn_at = self._clock()
        edit.accepted.set()
        edit.ended.set()

    def learn(self, edit: Edit) -> None:
        """Let later estimates profit from an edit that has just got through."""
        if edit.engine_since is not None:
            newest = (self._clock() - edit.engine_since) / edit.steps
            known = newest if math.isnan(self._seconds_per_step) else self._seconds_per_step
            self._seconds_per_step = known + NEWEST_WEIGHT * (newest - known)

    def silent(self, longest_s: float) -> list[Edit]:
        """Return the running edits that have been silent for longer than `longest_s`.

        Only one of a lane owes a sign of life, the one that the engine works on or else the
        oldest: the others may be waiting for it.
        """
        silent = []
        for lane in self.lanes:
            running = list(lane.running.values())
            on_engine = [edit for edit in running if edit.engine_since is not None]
            for edit in (on_engine or running)[:1]:
                if self._clock() - max(edit.heard_at, lane.turn_at) > longest_s:
                    silent.append(edit)
        return silent

    def seconds_left(self, edit: Edit) -> float:
        """Return how long it will take until `edit` is done; NaN where that is unknown."""
        return next(seconds for each, seconds in self._schedule() if each is edit)

    def moved_up(self) -> list[tuple[Edit, float]]:
        """Return the waiting edits whose position has changed, with their `seconds_left`."""
        moved = []
        for position, (edit, seconds) in enumerate(self._schedule(), 1 - len(self.running)):
            if position > 0 and edit.position != position:
                edit.position = position
                moved.append((edit, seconds))
        return moved

    def _schedule(self) -> Iterator[tuple[Edit, float]]:
        now = self._clock()
        working = [lane for lane in self.lanes if lane.ready or lane.running]
        busy = dict.fromkeys(working or self.lanes, 0.0)
        for edit in itertools.chain(self.running.values(), self.waiting.values()):
            lane = edit.lane or min(busy, key=lambda lane: busy[lane])
            busy[lane] += self._own_seconds(edit, now)
            yield edit, busy[lane]

    def _own_seconds(self, edit: Edit, now: float) -> float:
        if edit.engine_since is None or edit.last is None or edit.last.progress <= 0:
            return self._seconds_per_step * edit.steps
        return (now - edit.engine_since) * (1 - edit.last.progress) / edit.last.progress
