"""Owns working out from one look at the store which waiting job starts when.

The store decides whose turn it is when a job is claimed. This works out what it is going to decide.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from frontend.loopback import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from frontend.domain.edits import Size
    from frontend.domain.jobs import JobEvent
    from frontend.jobs.store import Announced, View, Waiting

UNKNOWN_AREA = 2**20
"""Pixels that a model is taken to compute at most until a Triton has answered."""


class Place(NamedTuple):
    """How a waiting job stands."""

    position: int
    """1 for the next job to start."""
    seconds_left: float
    """Until it is done; NaN if unknown."""


def places(view: View, area: int) -> dict[str, Place]:
    """Return the place of each waiting job, by its id.

    Args:
        view: of the store.
        area: pixels that a model computes at most.
    """
    tritons = by_triton(view)
    paces = [pace_of(of_one) for of_one in tritons]
    measured = [pace for pace in paces if pace is not None]
    usual = sum(measured) / len(measured) if measured else math.nan
    working = [
        number
        for number, of_one in enumerate(tritons)
        if any(each.state.ready or each.state.running for each in of_one)
    ]
    busy = dict.fromkeys(working or range(len(tritons)) or [0], 0.0)
    told: set[str] = set()
    for number, of_one in enumerate(tritons):
        for ends in (_ends(view, each) for each in of_one):
            told.update(ends)
            if number in busy and ends:
                busy[number] += [*ends.values()][-1]

    def add(event: JobEvent) -> float:
        number = min(busy, key=lambda each: busy[each])
        pace = paces[number] if number < len(paces) else None
        cost = (usual if pace is None else pace) * event.total_steps * pixels(event.size, area)
        busy[number] += cost
        return busy[number]

    for job in view.running:
        if job.job_id not in told:  # it was claimed since
            add(job.last)
    return {
        job.job_id: Place(position, add(job.last)) for position, job in enumerate(_in_turn(view), 1)
    }


def by_triton(view: View) -> list[list[Announced]]:
    """Return what was announced of each Triton: several processes may give jobs to one."""
    found: dict[str, list[Announced]] = {}
    for each in view.tritons:
        url, machine = each.state.url, each.worker.partition(":")[0]
        # The same address of its own is on another machine another Triton.
        is_own = is_loopback(url.rpartition(":")[0].strip("[]"))
        found.setdefault(f"{machine} {url}" if is_own else url, []).append(each)
    return list(found.values())


def pace_of(of_one: Sequence[Announced]) -> float | None:
    """Return what one step of one pixel takes a Triton, in seconds; None if it is unknown."""
    paces = (each.state.seconds_per_unit for each in of_one)
    known = [pace for pace in paces if pace is not None]
    return sum(known) / len(known) if known else None


def seconds_left(view: View, job_id: str) -> float | None:
    """Return the seconds until a job that a Triton has is done; NaN if unknown.

    None: who has it has not announced it yet.
    """
    ends = (_ends(view, each) for each in view.tritons)
    return next((each[job_id] for each in ends if job_id in each), None)


def pixels(size: Size | None, area: int) -> int:
    """Return how many pixels a model computes at most for an answer of this size.

    Args:
        size: of the answer, if known.
        area: pixels that the model computes at most.
    """
    return area if size is None else min(area, size[0] * size[1])


def known(seconds: float) -> float | None:
    """Return seconds as they are told: to the millisecond; None for NaN, which is unknown."""
    return None if math.isnan(seconds) else round(seconds, 3)


def _ends(view: View, triton: Announced) -> dict[str, float]:
    """Return the seconds until each job of a Triton is done, in its order; NaN if unknown."""
    held = {job.job_id for job in view.running if job.worker == triton.worker}
    ends: dict[str, float] = {}
    end = 0.0
    for job_id, seconds in triton.state.running.items():
        if job_id in held:
            end += math.nan if seconds is None else seconds
            ends[job_id] = max(end - triton.age_s, 0.0)  # its order keeps NaN
    return ends


def _in_turn(view: View) -> Iterator[Waiting]:
    """Yield the waiting jobs in the order of their start, if no other comes.

    Running jobs are taken to end in the order of their start.
    """
    queues: dict[str, deque[Waiting]] = {}
    for job in view.waiting:
        queues.setdefault(job.owner, deque()).append(job)
    turns = [
        (jobs[0].last_turn, place, owner) for place, (owner, jobs) in enumerate(queues.items())
    ]
    heapq.heapify(turns)
    next_turn = itertools.count(max((turn for turn, _, _ in turns), default=0) + 1)
    running = deque(job.owner for job in view.running)
    counts = Counter(running)
    most = sum(each.state.places for each in view.tritons) or 1
    busy: dict[str, tuple[int, int, str]] = {}
    while turns or busy:
        if not turns or len(running) >= most:
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
