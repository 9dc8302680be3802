from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from frontend.dispatch.lanes import Lanes, LiveJob
from frontend.domain.edits import EditPlan, EditProgress, Stage

if TYPE_CHECKING:
    from tests.fakes.clock import Clock


@pytest.fixture
def lanes(clock: Clock) -> Lanes:
    return Lanes(1, max_running=2, clock=clock)


def started(lanes: Lanes, *names: str, steps: int = 10, pixels: int = 100) -> list[LiveJob]:
    """Start jobs on whichever lane is free."""
    jobs = [LiveJob(name, steps, pixels, request_id=name) for name in names]
    for job in jobs:
        lane = lanes.free()
        assert lane is not None
        lanes.start(job, lane)
    return jobs


def progress(stage: Stage, fraction: float = 0.0, plan: EditPlan | None = None) -> EditProgress:
    step = int(stage is Stage.DENOISING)
    return EditProgress(stage, step, total_steps=10, progress=fraction, plan=plan)


def plan(pixels: int = 100, expected_seconds: float | None = None) -> EditPlan:
    return EditPlan(
        size=(800, 600), computed_sizes=((pixels, 1),), expected_seconds=expected_seconds
    )


def learn(lanes: Lanes, clock: Clock, seconds: float) -> None:
    """Run one job of 10 steps through, taking `seconds`."""
    (job,) = started(lanes, "learnt")
    job.hear(progress(Stage.ENCODING), clock.now, clock.now)
    clock.now += seconds
    lanes.learn(job)
    lanes.leave(job)


def test_a_lane_gets_not_too_many(lanes: Lanes) -> None:
    _, b = started(lanes, "a", "b")
    assert lanes.free() is None
    lanes.leave(b)
    assert lanes.free() is lanes.all[0]


def test_a_lost_attempt_that_ends_takes_nothing_from_the_next_one(lanes: Lanes) -> None:
    first, second = (LiveJob("a", 10, 100, request_id=f"a.{attempt}") for attempt in (1, 2))
    for job in (first, second):
        lanes.start(job, lanes.all[0])
    lanes.leave(first)
    assert list(lanes.running.values()) == list(lanes.all[0].running.values()) == [second]


def test_a_job_that_leaves_wakes_all_who_wait_for_it(lanes: Lanes) -> None:
    (a,) = started(lanes, "a")
    lanes.leave(a)
    assert a.ended.is_set()
    assert a.accepted.is_set()
    assert not lanes.running


def test_nothing_is_known_before_the_first_job(lanes: Lanes, clock: Clock) -> None:
    (a,) = started(lanes, "a")
    assert math.isnan(lanes.seconds_left(a))
    assert lanes.seconds_per_unit is None
    learn(lanes, clock, seconds=5)
    assert lanes.seconds_left(a) == 5
    assert lanes.seconds_per_unit == 5 / 1000


def test_a_job_takes_what_is_before_it_on_its_lane_takes(lanes: Lanes, clock: Clock) -> None:
    learn(lanes, clock, seconds=5)
    a, b = started(lanes, "a", "b")
    assert [lanes.seconds_left(job) for job in (a, b)] == [5, 10]
    a.hear(progress(Stage.DENOISING, 0.5), clock.now, clock.now)
    clock.now += 2
    assert [lanes.seconds_left(job) for job in (a, b)] == [2, 7]
    lanes.leave(a)
    assert lanes.seconds_left(b) == 5


def test_the_time_before_the_engine_does_not_count(lanes: Lanes, clock: Clock) -> None:
    (a,) = started(lanes, "a")
    for stage in (Stage.LOADING, Stage.CONDITIONING, Stage.ENCODING):
        a.hear(progress(stage), clock.now, clock.now)
        clock.now += 50
    a.hear(progress(Stage.DENOISING, 0.5), clock.now, clock.now)
    assert lanes.seconds_left(a) == 50


def test_a_job_that_never_reached_the_engine_teaches_nothing(lanes: Lanes) -> None:
    (a,) = started(lanes, "a")
    lanes.learn(a)
    assert lanes.seconds_per_unit is None


def test_newer_jobs_weigh_more(lanes: Lanes, clock: Clock) -> None:
    for seconds in (8, 4):
        learn(lanes, clock, seconds)
    (a,) = started(lanes, "a")
    assert lanes.seconds_left(a) == pytest.approx(6)


def test_only_the_oldest_running_job_owes_a_sign_of_life(lanes: Lanes, clock: Clock) -> None:
    assert lanes.silent(10) == []
    a, b = started(lanes, "a", "b")
    for job in (a, b):
        job.heard_at = clock.now
    clock.now += 9
    assert lanes.silent(10) == []
    a.hear(progress(Stage.DENOISING), clock.now, clock.now)
    clock.now += 11
    assert lanes.silent(10) == [a]
    lanes.leave(a)
    assert lanes.silent(10) == []
    clock.now += 11
    assert lanes.silent(10) == [b]


@pytest.fixture
def two(clock: Clock) -> Lanes:
    """Provide two engines."""
    return Lanes(2, max_running=2, clock=clock)


def test_the_idlest_lane_gets_the_next_edit(two: Lanes) -> None:
    first, second = two.all
    jobs = started(two, *"abcd")
    assert two.free() is None
    assert [job.lane for job in jobs] == [first, second, first, second]
    two.leave(jobs[1])
    (e,) = started(two, "e")
    assert e.lane is second
    assert list(second.running) == ["d", "e"]


def test_a_lane_that_is_not_ready_gets_none(two: Lanes) -> None:
    first, second = two.all
    first.ready = False
    started(two, "a", "b")
    assert list(second.running) == ["a", "b"]
    assert two.free() is None
    first.ready = True
    assert two.free() is first
    second.ready = first.ready = False
    assert two.free() is None


def test_every_lane_owes_a_sign_of_life(two: Lanes, clock: Clock) -> None:
    jobs = started(two, *"abcd")
    for job in jobs:
        job.heard_at = clock.now
    clock.now += 11
    assert two.silent(10) == jobs[:2]
    two.leave(jobs[0])
    jobs[1].hear(progress(Stage.DENOISING), clock.now, clock.now)
    assert two.silent(10) == []
    clock.now += 11
    assert two.silent(10) == [jobs[2], jobs[1]]


def test_larger_pictures_take_longer(lanes: Lanes, clock: Clock) -> None:
    learn(lanes, clock, 10)
    a, b = started(lanes, "a", pixels=200) + started(lanes, "b", pixels=50)
    assert [lanes.seconds_left(job) for job in (a, b)] == [20, 25]


def test_the_model_s_own_word_about_a_job_counts(lanes: Lanes, clock: Clock) -> None:
    learn(lanes, clock, 10)
    (a,) = started(lanes, "a", pixels=100)
    a.hear(progress(Stage.ENCODING, 0.1, plan(pixels=30, expected_seconds=4)), clock.now, clock.now)
    assert (a.size, a.pixels, a.computed_sizes) == ((800, 600), 30, ((30, 1),))
    assert lanes.seconds_left(a) == 4
    clock.now += 3
    assert lanes.seconds_left(a) == 1
    clock.now += 1
    assert math.isnan(lanes.seconds_left(a))  # never 0 before the first step
    a.hear(progress(Stage.DENOISING, 0.5), clock.now, clock.now)
    assert lanes.seconds_left(a) == 4


def test_nobody_knows_the_time_before_the_first_step_of_the_first_job(
    lanes: Lanes, clock: Clock
) -> None:
    (a,) = started(lanes, "a")
    a.hear(progress(Stage.ENCODING, 0.1, plan()), clock.now, clock.now)
    clock.now += 1
    assert math.isnan(lanes.seconds_left(a))


def test_an_engine_is_taken_when_two_pings_show_an_ended_job(lanes: Lanes) -> None:
    (lane,) = lanes.all
    a, _ = started(lanes, "a", "b")
    assert not lane.note_work("a")
    lanes.leave(a)
    assert not lane.note_work("a")  # it may have ended since the engine answered
    assert lane.taken_by == ""
    assert lane.note_work("a")
    assert lane.taken_by == "a"
    assert not lane.note_work("a")
    assert lane.note_work("b")
    assert lane.taken_by == ""
    assert not lane.note_work("another client's")
    assert not lane.note_work("another client's")
    assert lane.taken_by == ""


def test_a_job_is_overdue_by_the_time_that_the_engine_has_worked_on_it(
    lanes: Lanes, clock: Clock
) -> None:
    first, second = started(lanes, "a", "b")
    first.hear(progress(Stage.ENCODING), clock.now, clock.now)
    second.hear(progress(Stage.CONDITIONING), clock.now, clock.now)
    clock.now += 10
    assert lanes.overdue(10) == []
    clock.now += 1
    assert lanes.overdue(10) == [first]
