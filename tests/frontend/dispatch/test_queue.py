from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from frontend.dispatch.queue import JobQueue, LiveJob
from frontend.domain.edits import EditPlan, EditProgress, Stage
from frontend.errors import TooMuchError, UnavailableError
from tests.fakes.owners import owner

if TYPE_CHECKING:
    from tests.fakes.clock import Clock


@pytest.fixture
def queue(clock: Clock) -> JobQueue:
    return JobQueue(max_waiting=3, max_running=2, clock=clock)


def entered(queue: JobQueue, *names: str, steps: int = 10, pixels: int = 100) -> list[LiveJob]:
    jobs = [LiveJob(name, steps, pixels, "me", request_id=name) for name in names]
    for job in jobs:
        queue.enter(job)
    return jobs


def start_next(queue: JobQueue) -> LiveJob | None:
    """Start the job whose turn it is, if a lane may have it: as the store decides."""
    running = Counter(job.owner for job in queue.running.values())
    able = [
        job
        for job in queue.waiting.values()
        if job.max_running is None or running[job.owner] < job.max_running
    ]
    lane = queue.free_lane()
    if lane is None or not able:
        return None
    job = min(able, key=lambda job: queue.turns.get(job.owner, 0))
    queue.start(job, lane, max(queue.turns.values(), default=0) + 1)
    return job


def progress(stage: Stage, fraction: float = 0.0, plan: EditPlan | None = None) -> EditProgress:
    step = int(stage is Stage.DENOISING)
    return EditProgress(stage, step, total_steps=10, progress=fraction, plan=plan)


def plan(pixels: int = 100, expected_seconds: float | None = None) -> EditPlan:
    return EditPlan(
        size=(800, 600), computed_sizes=((pixels, 1),), expected_seconds=expected_seconds
    )


def learn(queue: JobQueue, clock: Clock, seconds: float) -> None:
    """Run one job of 10 steps through, taking `seconds`."""
    (job,) = entered(queue, "learnt")
    assert start_next(queue) is job
    job.hear(progress(Stage.ENCODING), clock.now, clock.now)
    clock.now += seconds
    queue.learn(job)
    queue.leave(job)


def test_jobs_start_in_order_and_not_too_many(queue: JobQueue) -> None:
    a, b, c = entered(queue, "a", "b", "c")
    assert [start_next(queue) for _ in range(3)] == [a, b, None]
    queue.leave(b)
    assert start_next(queue) is c
    assert start_next(queue) is None


def test_a_job_that_leaves_wakes_all_who_wait_for_it(queue: JobQueue) -> None:
    (a,) = entered(queue, "a")
    queue.leave(a)
    assert a.ended.is_set()
    assert a.accepted.is_set()
    assert not queue.waiting


def positions(queue: JobQueue) -> dict[str, int]:
    return {job_id: position for job_id, (position, _) in queue.standings().items()}


def test_positions_fall_for_jobs_behind(queue: JobQueue) -> None:
    a, b, _ = entered(queue, "a", "b", "c")
    assert positions(queue) == {"a": 1, "b": 2, "c": 3}
    queue.leave(b)
    assert positions(queue) == {"a": 1, "c": 2}
    assert start_next(queue) is a
    assert positions(queue) == {"c": 1}


def test_a_job_that_comes_back_has_its_place_again(queue: JobQueue) -> None:
    for number, name in enumerate("bc", 2):
        queue.enter(LiveJob(name, 10, 100, "me", number=number))
    new = LiveJob("new", 10, 100, "me")
    assert queue.outlook(new)[0] == 3
    queue.enter(LiveJob("a", 10, 100, "me", number=1))
    assert positions(queue) == {"a": 1, "b": 2, "c": 3}
    assert queue.outlook(new)[0] == 4


def test_nothing_is_known_before_the_first_job(queue: JobQueue, clock: Clock) -> None:
    (a,) = entered(queue, "a")
    assert math.isnan(queue.seconds_left(a))
    queue.leave(a)
    learn(queue, clock, seconds=5)
    queue.enter(a)
    assert queue.seconds_left(a) == 5


def test_waiting_takes_what_is_ahead_takes(queue: JobQueue, clock: Clock) -> None:
    learn(queue, clock, seconds=5)
    a, b = entered(queue, "a", "b")
    (c,) = entered(queue, "c", steps=20)
    assert [queue.seconds_left(job) for job in (a, b, c)] == [5, 10, 20]
    start_next(queue)
    a.hear(progress(Stage.DENOISING, 0.5), clock.now, clock.now)
    clock.now += 2
    assert [queue.seconds_left(job) for job in (a, b, c)] == [2, 7, 17]
    queue.leave(a)
    assert [seconds for _, seconds in queue.standings().values()] == [5, 15]


def test_the_time_before_the_engine_does_not_count(queue: JobQueue, clock: Clock) -> None:
    (a,) = entered(queue, "a")
    start_next(queue)
    for stage in (Stage.LOADING, Stage.CONDITIONING, Stage.ENCODING):
        a.hear(progress(stage), clock.now, clock.now)
        clock.now += 50
    a.hear(progress(Stage.DENOISING, 0.5), clock.now, clock.now)
    assert queue.seconds_left(a) == 50


def test_a_job_that_never_reached_the_engine_teaches_nothing(queue: JobQueue) -> None:
    a, b = entered(queue, "a", "b")
    start_next(queue)
    queue.learn(a)
    assert math.isnan(queue.seconds_left(b))


def test_newer_jobs_weigh_more(queue: JobQueue, clock: Clock) -> None:
    for seconds in (8, 4):
        learn(queue, clock, seconds)
    (a,) = entered(queue, "a")
    assert queue.seconds_left(a) == pytest.approx(6)


def test_only_the_oldest_running_job_owes_a_sign_of_life(queue: JobQueue, clock: Clock) -> None:
    assert queue.silent(10) == []
    a, b = entered(queue, "a", "b")
    for job in (a, b):
        start_next(queue)
        job.heard_at = clock.now
    clock.now += 9
    assert queue.silent(10) == []
    a.hear(progress(Stage.DENOISING), clock.now, clock.now)
    clock.now += 11
    assert queue.silent(10) == [a]
    queue.leave(a)
    assert queue.silent(10) == []
    clock.now += 11
    assert queue.silent(10) == [b]


@pytest.fixture
def two(clock: Clock) -> JobQueue:
    """Provide a queue before two engines."""
    return JobQueue(max_waiting=9, max_running=2, clock=clock, lanes=2)


def test_the_idlest_lane_gets_the_next_edit(two: JobQueue) -> None:
    first, second = two.lanes
    jobs = entered(two, *"abcde")
    assert [start_next(two) for _ in range(5)] == [*jobs[:4], None]
    assert [job.lane for job in jobs[:4]] == [first, second, first, second]
    two.leave(jobs[1])
    assert start_next(two) is jobs[4]
    assert jobs[4].lane is second
    assert list(second.running) == ["d", "e"]


def test_a_lane_that_is_not_ready_gets_none(two: JobQueue) -> None:
    first, second = two.lanes
    first.ready = False
    a, b, c = entered(two, "a", "b", "c")
    assert [start_next(two) for _ in range(3)] == [a, b, None]
    assert list(second.running) == ["a", "b"]
    first.ready = True
    assert start_next(two) is c
    second.ready = first.ready = False
    assert start_next(two) is None


def test_lanes_work_side_by_side(two: JobQueue, clock: Clock) -> None:
    learn(two, clock, seconds=5)
    jobs = entered(two, *"abcd")
    assert [two.seconds_left(job) for job in jobs] == [5, 5, 10, 10]
    start_next(two)
    assert [two.seconds_left(job) for job in jobs] == [5, 5, 10, 10]
    two.lanes[1].ready = False
    assert [two.seconds_left(job) for job in jobs] == [5, 10, 15, 20]
    two.lanes[0].ready = False
    two.leave(jobs[0])
    assert [two.seconds_left(job) for job in jobs[1:]] == [5, 5, 10]


def test_every_lane_owes_a_sign_of_life(two: JobQueue, clock: Clock) -> None:
    jobs = entered(two, *"abcd")
    for job in jobs:
        start_next(two)
        job.heard_at = clock.now
    clock.now += 11
    assert two.silent(10) == jobs[:2]
    two.leave(jobs[0])
    jobs[1].hear(progress(Stage.DENOISING), clock.now, clock.now)
    assert two.silent(10) == []
    clock.now += 11
    assert two.silent(10) == [jobs[2], jobs[1]]


def test_larger_pictures_take_longer(queue: JobQueue, clock: Clock) -> None:
    learn(queue, clock, 10)
    a, b = entered(queue, "a", pixels=200) + entered(queue, "b", pixels=50)
    assert [queue.seconds_left(job) for job in (a, b)] == [20, 25]


def test_the_model_s_own_word_about_a_job_counts(queue: JobQueue, clock: Clock) -> None:
    learn(queue, clock, 10)
    (a,) = entered(queue, "a", pixels=100)
    start_next(queue)
    a.hear(progress(Stage.ENCODING, 0.1, plan(pixels=30, expected_seconds=4)), clock.now, clock.now)
    assert (a.size, a.pixels, a.computed_sizes) == ((800, 600), 30, ((30, 1),))
    assert queue.seconds_left(a) == 4
    clock.now += 3
    assert queue.seconds_left(a) == 1
    clock.now += 1
    assert math.isnan(queue.seconds_left(a))  # never 0 before the first step
    a.hear(progress(Stage.DENOISING, 0.5), clock.now, clock.now)
    assert queue.seconds_left(a) == 4


def test_nobody_knows_the_time_before_the_first_step_of_the_first_job(
    queue: JobQueue, clock: Clock
) -> None:
    (a,) = entered(queue, "a")
    start_next(queue)
    a.hear(progress(Stage.ENCODING, 0.1, plan()), clock.now, clock.now)
    clock.now += 1
    assert math.isnan(queue.seconds_left(a))


def test_an_engine_is_taken_when_two_pings_show_an_ended_job(queue: JobQueue) -> None:
    (lane,) = queue.lanes
    a, _ = entered(queue, "a", "b")
    start_next(queue)
    start_next(queue)
    assert not lane.note_work("a")
    queue.leave(a)
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


def of(
    queue: JobQueue, owner_name: str, *names: str, max_running: int | None = None
) -> list[LiveJob]:
    """Enter jobs of one owner."""
    jobs = [LiveJob(name, 10, 100, owner_name, max_running) for name in names]
    for job in jobs:
        queue.enter(job)
    return jobs


def start_order(queue: JobQueue) -> str:
    """Run all jobs through, the oldest ends first; return their ids as they start."""
    started = ""
    while queue.waiting or queue.running:
        while job := start_next(queue):
            started += job.job_id
        queue.leave(next(iter(queue.running.values())))
    return started


def test_owners_take_turns_and_places_say_so(clock: Clock) -> None:
    queue = JobQueue(max_waiting=20, max_running=1, clock=clock)
    of(queue, "a", *"abcd")
    assert start_next(queue) is not None
    of(queue, "x", *"xy")
    of(queue, "z", "z")
    assert list(queue.standings()) == list("xzbycd")
    assert [place for place, _ in queue.standings().values()] == [1, 2, 3, 4, 5, 6]
    assert start_order(queue) == "xzbycd"


def test_an_owner_that_has_waited_longest_comes_before_one_that_comes_back(clock: Clock) -> None:
    queue = JobQueue(max_waiting=20, max_running=1, clock=clock)
    of(queue, "a", *"abc")
    assert start_next(queue) is not None
    of(queue, "x", "x")
    queue.leave(next(iter(queue.running.values())))
    assert start_next(queue) is not None  # x
    of(queue, "x", "y")
    assert start_order(queue) == "byc"


@pytest.mark.parametrize("places", [1, 2, 3, 5])
@pytest.mark.parametrize("most", [1, 2])
def test_one_at_its_bound_of_running_jobs_lets_others_pass(
    clock: Clock, places: int, most: int
) -> None:
    queue = JobQueue(max_waiting=20, max_running=places, clock=clock)
    of(queue, "a", *"abcd", max_running=most)
    of(queue, "x", *"xyz")
    told = "".join(queue.standings())
    started = ""
    while queue.waiting:
        while job := start_next(queue):
            started += job.job_id
            running = [each.owner for each in queue.running.values()]
            assert running.count("a") <= most
        queue.leave(next(iter(queue.running.values())))
    assert sorted(started) == list("abcdxyz")
    assert started == told


def test_an_owner_has_a_bound_of_waiting_jobs(queue: JobQueue) -> None:
    few = owner("a", max_waiting=2)
    of(queue, "a", "a")
    queue.check(few)
    of(queue, "a", "b")
    with pytest.raises(TooMuchError, match="This client has as many waiting jobs as one may: 2"):
        queue.check(few)
    queue.check(owner("b"))
    of(queue, "b", "c")
    with pytest.raises(UnavailableError, match="The queue is full"):
        queue.check(few)
