"""Owns what is known of the waiting jobs and of those who run them, from looks at the store."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Self

import structlog

from frontend import shares
from frontend.domain.jobs import JobStatus
from frontend.errors import (
    ClosingError,
    ServingError,
    StoreAwayError,
    TritonDownError,
    UnavailableError,
    UnsupportedError,
)
from frontend.jobs.ends import log_ended
from frontend.jobs.outage import Outage
from frontend.jobs.rules import CANCELLED_TEXT
from frontend.jobs.schedule import (
    UNKNOWN_AREA,
    Place,
    by_triton,
    known,
    pace_of,
    pixels,
    places,
    seconds_left,
)
from frontend.jobs.store import View, Waiting
from frontend.supervision import Rounds, supervised_task
from frontend.waiting import set_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frontend.domain.edits import Size
    from frontend.domain.jobs import JobEvent
    from frontend.domain.owners import Owner
    from frontend.domain.tritons import TritonState
    from frontend.jobs.store import Announced, JobStore

log = structlog.get_logger()

LOOK_S = 1.0
# Of several changes in so short a time only the last one is looked at.
GATHER_S = 0.02
NOBODY = "No process that runs edits has reported"


class Board:
    """How the Tritons and the waiting jobs stand, in whatever process the jobs run.

    An asynchronous context manager: it looks at the store only inside it.

    Args:
        store: of the jobs.
        max_waiting: maximum number of waiting jobs.
        longest_outage_s: seconds without a Triton that can run them after which waiting jobs end.
    """

    def __init__(self, store: JobStore, max_waiting: int, longest_outage_s: float) -> None:
        self._store = store
        self._max_waiting = max_waiting
        self._longest_outage_s = longest_outage_s
        self._outage = Outage(longest_outage_s)
        # By the waiting jobs' task type: the Tritons that are up may lack its adapter.
        self._outages: dict[str, Outage] = {}
        self._outlasted: set[str] = set()
        self._area = UNKNOWN_AREA
        self._view = View([], [], [])
        self._tritons: list[TritonState] = []
        self._places: dict[str, Place] | None = None
        self._now: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._closing = False
        self._work = contextlib.ExitStack()
        self._changed: asyncio.Event

    async def __aenter__(self) -> Self:
        self._changed = self._work.enter_context(self._store.changes())
        await self.look()
        self._looking = supervised_task("board", self._look_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._looking.cancel()
        await asyncio.wait([self._looking])
        self._work.close()

    @property
    def waiting(self) -> int:
        """Number of jobs that wait to start."""
        return len(self._view.waiting)

    @property
    def running(self) -> int:
        """Number of jobs that Tritons have."""
        return len(self._view.running)

    @property
    def tritons(self) -> list[TritonState]:
        """How each Triton stands that dispatchers announce; of one, several may."""
        return self._tritons

    @property
    def loading(self) -> str | None:
        """What Tritons are loading, in words; None if none has told."""
        return (
            "; ".join(dict.fromkeys(each.loading for each in self.tritons if each.loading)) or None
        )

    @property
    def taken_by(self) -> list[str]:
        """Ids of ended jobs that a model still works on, so that others wait."""
        return [state.taken_by for state in self.tritons if state.taken_by]

    def require(self) -> list[TritonState]:
        """Return the states of the Tritons that can run edits now.

        Raises:
            ClosingError: the server is stopping.
            TritonDownError: no Triton can; the detail gives the reason.
        """
        if self._closing:
            raise ClosingError()
        if ready := self._ready:
            return ready
        raise self._outage_error()

    def require_adapter(self, task_type: str) -> None:
        """Check that a Triton can run edits of this kind now.

        Raises:
            ClosingError: the server is stopping.
            TritonDownError: no Triton can run any; the detail gives the reason.
            UnsupportedError: the loaded bundles have no adapter for it.
        """
        self.require()
        if not self._able(task_type):
            raise self._lack(task_type)

    def expected_seconds(self, steps: int, size: Size | None) -> float | None:
        """Return how long an edit takes on an idle engine, in seconds.

        Args:
            steps: denoising steps.
            size: of the answer, if known.

        Returns:
            None if no edit was measured yet, or no Triton can run edits now.
        """
        paces = [state.seconds_per_unit for state in self._ready]
        known = [pace for pace in paces if pace is not None]
        return round(min(known) * steps * self.pixels(size), 3) if known else None

    def pixels(self, size: Size | None) -> int:
        """Return how many pixels the model computes at most for an answer of this size."""
        return pixels(size, self._area)

    def check(self, owner: Owner) -> None:
        """Check that one more job of this owner may wait.

        Raises:
            UnavailableError: too many jobs wait.
            TooMuchError: too many of this owner do.
        """
        if self.waiting >= self._max_waiting:
            raise UnavailableError("The queue is full")
        shares.check_waiting(owner, sum(job.owner == owner.name for job in self._view.waiting))

    def outlook(self, owner: Owner, event: JobEvent) -> JobEvent:
        """Return the first event of a job that is about to come, with how it will stand."""
        view = self._view
        turns = {job.owner: job.last_turn for job in view.waiting}
        turns |= {job.owner: job.turn for job in view.running}
        number = max((job.number for job in view.waiting), default=0) + 1
        max_running, turn = owner.limits.max_running, turns.get(owner.name, 0)
        job = Waiting(number, "", "", owner.name, max_running, turn, event)
        with_it = view._replace(waiting=[*view.waiting, job])
        return self._as_queued(event, places(with_it, self._area)[""])

    def standing(self, job_id: str, last: JobEvent) -> JobEvent:
        """Return a job's newest event as it is now: how long a job waits changes with the others.

        Args:
            job_id: the job.
            last: its newest event.
        """
        if last.waits and last.status is JobStatus.PROCESSING:
            if (left := seconds_left(self._view, job_id)) is None:
                return last
            return dataclasses.replace(last, eta_seconds=known(left), at=time.time())
        if last.status is not JobStatus.QUEUED:
            return last
        if self._places is None:
            self._places = places(self._view, self._area)
        if (place := self._places.get(job_id)) is None:
            # It has been taken, and its log does not say so yet: its place there is of long ago.
            return dataclasses.replace(last, queue_position=None)
        return self._as_queued(last, place)

    async def end_cancelled(self, job_id: str) -> None:
        """Bring a job, which its client has cancelled, to its end; who runs it is told."""
        await self._end_waiting(job_id, JobStatus.CANCELLED, CANCELLED_TEXT)

    # --- looking ---

    async def look(self) -> None:
        """Look at the store now.

        Raises:
            StoreAwayError: it cannot be reached.
        """
        # One look for all who ask before it begins; one that has begun may have missed something.
        if self._next is None:
            self._next = asyncio.create_task(self._look_after(self._now))
        await asyncio.shield(self._next)

    async def _look_after(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._now, self._next = self._next, None
        self._view, self._places = await self._store.view(), None
        self._tritons = [_state(of_one) for of_one in by_triton(self._view)]
        areas = [state.image_area for state in self.tritons if state.image_area is not None]
        self._area = max(areas, default=self._area)
        self._note_outages(asyncio.get_running_loop().time())

    def _note_outages(self, now: float) -> None:
        stage = self.loading
        self._outage.note(now, down=not self._ready, stage=stage)
        self._outages = {
            each: self._outages.get(each) or Outage(self._longest_outage_s)
            for each in {job.task_type for job in self._view.waiting}
        }
        self._outlasted = {
            each
            for each, outage in self._outages.items()
            if outage.note(now, down=not self._able(each), stage=stage)
        }

    async def _look_for_ever(self) -> None:
        rounds = Rounds("board")
        while True:
            self._changed.clear()
            with rounds.one():
                try:
                    await self.look()
                    await self._end_outlasted()
                except StoreAwayError as error:
                    log.warning("store_away", reason=error.reason)
            await set_within(self._changed, LOOK_S)
            await asyncio.sleep(GATHER_S)

    async def _end_outlasted(self) -> None:
        # Now, because a Triton may come up while one job after the other is ended.
        errors = {each: self._lack(each).job_error for each in self._outlasted}
        for job in self._view.waiting:
            if (error := errors.get(job.task_type)) is not None:
                await self._end_waiting(job.job_id, JobStatus.ERROR, error)

    async def _end_waiting(self, job_id: str, status: JobStatus, error: str) -> None:
        if not await self._store.end_waiting(job_id, status, error):
            return
        entries = [event for _, event in await self._store.read(job_id)]
        queued_seconds = round(entries[-1].at - entries[0].at, 3)
        log_ended(job_id, entries[-1], queued_seconds=queued_seconds, run_seconds=0.0)

    def _as_queued(self, event: JobEvent, place: Place) -> JobEvent:
        """Return a waiting job's event with how it stands now."""
        return dataclasses.replace(
            event,
            queue_position=place.position,
            engine_taken=bool(self.tritons) and all(state.taken_by for state in self.tritons),
            triton_down=not self._ready,
            triton_loading=self._outage.stage,
            eta_seconds=known(place.seconds_left),
            at=time.time(),
        )

    @property
    def _ready(self) -> list[TritonState]:
        return [state for state in self.tritons if state.ready]

    def _able(self, task_type: str) -> bool:
        return any(task_type in state.adapters for state in self._ready)

    def _lack(self, task_type: str) -> ServingError:
        """Return why no Triton can run edits of this kind."""
        if self._ready:
            return UnsupportedError(f"task_type: the adapter for {task_type} is not installed")
        return self._outage_error()

    def _outage_error(self) -> TritonDownError:
        return TritonDownError(next((state.reason for state in self.tritons), NOBODY))


def _state(of_one: Sequence[Announced]) -> TritonState:
    """Return how a Triton stands, from all that was announced of it."""
    states = [each.state for each in of_one]
    return dataclasses.replace(
        next((state for state in states if state.ready), states[0]),
        # Each process knows of its own ended jobs alone.
        taken_by=next((state.taken_by for state in states if state.taken_by), ""),
        seconds_per_unit=pace_of(of_one),
    )
