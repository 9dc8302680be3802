"""Which waiting job starts when, worked out from one look at the store."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from frontend.domain.jobs import JobEvent, JobStatus
from frontend.domain.tritons import TritonState
from frontend.jobs.schedule import pixels, places, seconds_left
from frontend.jobs.store import Announced, Running, View, Waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

AREA = 100
UNIT_S = 5 / 1000
"""A job of 10 steps and 100 pixels takes 5 s."""


def event(steps: int = 10, **fields: Any) -> JobEvent:
    return JobEvent(status=JobStatus.QUEUED, total_steps=steps, at=0, **fields)


numbers = itertools.count(1)


def triton(
    places: int = 1, unit_s: float | None = UNIT_S, age_s: float = 0, url: str = "", **fields: Any
) -> Announced:
    """Return what is announced of a Triton, of one of its own unless `url` is given."""
    url = url or f"triton{next(numbers)}:8001"
    state = TritonState(url=url, places=places, seconds_per_unit=unit_s, **fields)
    return Announced("w", state, age_s)


def waiting(
    owner: str, names: str, first: int = 1, turn: int = 0, steps: int = 10, **fields: Any
) -> list[Waiting]:
    most = fields.pop("most", None)
    return [
        Waiting(number, name, "removal", owner, most, turn, event(steps, **fields))
        for number, name in enumerate(names, first)
    ]


def running(owner: str, names: str, turn: int = 1) -> list[Running]:
    return [Running(name, owner, "w", number, event()) for number, name in enumerate(names, turn)]


def order(view: View) -> str:
    return "".join(places(view, AREA))


def seconds(view: View) -> list[float]:
    return [place.seconds_left for place in places(view, AREA).values()]


def test_positions_count_from_one_in_the_order_of_starts() -> None:
    found = places(View(waiting("o", "abc"), [], [triton()]), AREA)
    assert [(name, place.position) for name, place in found.items()] == [
        ("a", 1), ("b", 2), ("c", 3),
    ]  # fmt: skip


def test_waiting_takes_what_is_ahead_takes() -> None:
    jobs = waiting("o", "bc") + waiting("o", "d", first=3, steps=20)
    busy = triton(running={"a": 2.0}, age_s=0.5)
    assert seconds(View(jobs, running("o", "a"), [busy])) == [6.5, 11.5, 21.5]
    # What it announced has run out.
    busy = triton(running={"a": 2.0}, age_s=3)
    assert seconds(View(jobs, running("o", "a"), [busy])) == [5, 10, 20]


def test_what_a_triton_has_ends_in_its_order() -> None:
    busy = triton(running={"gone": 9.0, "a": 2.0, "b": 5.0, "c": None, "d": 5.0}, age_s=0.5)
    view = View([], running("o", "abcd"), [triton(), busy])
    assert [seconds_left(view, name) for name in "ab"] == [1.5, 6.5]
    assert all(math.isnan(seconds_left(view, name) or 0) for name in "cd")
    assert seconds_left(view, "nobody's") is None


def test_a_worker_that_has_lost_a_job_says_nothing_of_it() -> None:
    former = triton(running={"a": 1.0}, age_s=6)._replace(worker="former")
    busy = triton(running={"a": 9.0})
    view = View(waiting("o", "b"), running("o", "a"), [former, busy])
    assert seconds_left(view, "a") == 9
    assert seconds(view) == [5]  # on the Triton that has nothing to do


def test_what_was_claimed_since_the_announcement_counts() -> None:
    view = View(waiting("o", "b"), running("o", "a"), [triton()])
    assert seconds(view) == [10]
    # And what has ended since does not.
    assert seconds(View(waiting("o", "b"), [], [triton(running={"a": 7.0})])) == [5]


def test_nothing_is_known_before_a_job_was_measured() -> None:
    assert math.isnan(seconds(View(waiting("o", "a"), [], [triton(unit_s=None)]))[0])
    view = View(waiting("o", "b"), running("o", "a"), [triton(running={"a": None})])
    assert math.isnan(seconds(view)[0])


def test_tritons_work_side_by_side_each_at_its_pace() -> None:
    jobs = waiting("o", "abcd")
    assert seconds(View(jobs, [], [triton(), triton()])) == [5, 5, 10, 10]
    # One that has measured nothing counts as the others.
    assert seconds(View(jobs, [], [triton(), triton(unit_s=None)])) == [5, 5, 10, 10]
    assert seconds(View(jobs, [], [triton(), triton(unit_s=4 * UNIT_S)])) == [5, 20, 10, 15]
    away = triton(reason="down")
    assert seconds(View(jobs, [], [triton(), away])) == [5, 10, 15, 20]
    still = triton(reason="stopping", running={"x": 1.0})
    assert seconds(View(jobs, running("o", "x"), [triton(), still])) == [5, 6, 10, 11]


def test_a_triton_that_two_give_jobs_to_works_on_one_after_the_other() -> None:
    url = "triton:8001"
    jobs = waiting("o", "cde")
    assert seconds(View(jobs, [], [triton(url=url), triton(url=url)])) == [5, 10, 15]
    here = triton(url=url, running={"a": 2.0})
    there = triton(url=url, unit_s=None, running={"b": 4.0})._replace(worker="other")
    held = running("o", "a") + [each._replace(worker="other") for each in running("o", "b", turn=2)]
    assert seconds(View(jobs, held, [here, there])) == [11, 16, 21]
    # One that stops does not take it from the other.
    stopping = triton(url=url, reason="stopping")
    assert seconds(View(jobs, [], [stopping, triton(url=url)])) == [5, 10, 15]


def test_what_two_machines_reach_at_an_address_of_their_own_are_two_tritons() -> None:
    here, there = (
        triton(url="127.0.0.1:8001")._replace(worker=f"{machine}:8080/1")
        for machine in ("here", "there")
    )
    assert seconds(View(waiting("o", "ab"), [], [here, there])) == [5, 5]
    assert seconds(View(waiting("o", "ab"), [], [here, here])) == [5, 10]


def test_there_are_places_where_there_is_no_triton() -> None:
    assert order(View(waiting("o", "ab"), [], [])) == "ab"
    assert math.isnan(seconds(View(waiting("o", "ab"), [], []))[0])
    assert seconds(View(waiting("o", "ab"), [], [triton(reason="down")])) == [5, 10]


def test_larger_pictures_take_longer_up_to_the_model_s_bound() -> None:
    jobs = waiting("o", "a", size=(5, 10)) + waiting("o", "b", first=2, size=(100, 100))
    assert seconds(View(jobs, [], [triton()])) == [2.5, 7.5]
    assert pixels(None, AREA) == AREA


def test_owners_take_turns_and_places_say_so() -> None:
    jobs = waiting("a", "bcd", turn=1) + waiting("x", "xy", first=4) + waiting("z", "z", first=6)
    assert order(View(jobs, running("a", "a"), [triton()])) == "xzbycd"


def test_an_owner_that_has_waited_longest_comes_before_one_that_comes_back() -> None:
    jobs = waiting("a", "bc", turn=1) + waiting("x", "y", first=4, turn=2)
    assert order(View(jobs, running("x", "x", turn=2), [triton()])) == "byc"


def starts(jobs: Sequence[Waiting], most: int, at_once: int) -> str:
    """Run all jobs through as the store decides, the oldest ends first."""
    left, held, started = list(jobs), list[Waiting](), ""
    turns: dict[str, int] = {}
    while left:
        counts = Counter(job.owner for job in held)
        able = [job for job in left if job.owner != "a" or counts["a"] < most]
        if len(held) >= at_once or not able:
            held.pop(0)
            continue
        job = min(able, key=lambda job: (turns.get(job.owner, 0), job.number))
        turns[job.owner] = max(turns.values(), default=0) + 1
        left.remove(job)
        held.append(job)
        started += job.job_id
    return started


@pytest.mark.parametrize("at_once", [1, 2, 3, 5])
@pytest.mark.parametrize("most", [1, 2])
def test_one_at_its_bound_of_running_jobs_lets_others_pass(at_once: int, most: int) -> None:
    jobs = waiting("a", "abcd", most=most) + waiting("x", "xyz", first=5)
    told = order(View(jobs, [], [triton(at_once)]))
    assert told == starts(jobs, most, at_once)
