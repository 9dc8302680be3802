"""Jobs in every order of submitting, cancelling and failing, on real threads with a fake engine."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from image_edit.errors import DeviceLostError
from image_edit.jobs import EditJob, EditJobs
from image_edit.messages import Failed, Message, Progressed, Stage, Succeeded, Terminal
from image_edit.run import EditRunner
from model_kit.errors import Code, CodedError

from .edits import FakeEngine, Gate, conditions_of, request_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from image_edit.conditions import Conditions
    from image_edit.request import EditRequest

BOUND = 3
STEPS = 3
# Passes through the engine's gate that an edit needs.
UNITS = STEPS + 2


def eventually(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


class Bench:
    """EditJobs between two gates, with a log of what was sent to each job's client."""

    def __init__(self, warm_up: Callable[[], None] = lambda: None) -> None:
        self.engine = FakeEngine()
        self.conditioning = Gate()
        self.sent: dict[EditJob, list[Message]] = {}
        self.errors: list[str] = []
        self.most_live = 0
        self.ended_at_loss: list[int] = []
        self.ended_at_giving_back: list[int] = []
        self.work = self.engine.work
        self.jobs = EditJobs(
            self._condition,
            EditRunner(self.engine, "fake").run,
            self.work,
            self._emit,
            self.errors.append,
            self._lose_device,
            BOUND,
            warm_up,
            lambda: self.ended_at_giving_back.append(len(self.ends())),
        )

    def _condition(self, request: EditRequest) -> Conditions:
        self.conditioning.enter()
        return conditions_of()

    def _emit(self, job: EditJob, message: Message) -> None:
        self.sent.setdefault(job, []).append(message)
        self.most_live = max(self.most_live, len(self.sent) - len(self.ends()))

    def _lose_device(self) -> None:
        self.ended_at_loss.append(len(self.ends()))

    def submit(self, request_id: str = "", **inputs: Any) -> EditJob:
        job = EditJob(request_id, request_of(NUM_INFERENCE_STEPS=STEPS, **inputs))
        self.jobs.submit(job)
        return job

    def ends(self) -> dict[EditJob, Message]:
        """Return the terminal messages so far."""
        sent = list(self.sent.items())
        return {job: sent[-1] for job, sent in sent if isinstance(sent[-1], Terminal)}

    def end(self, job: EditJob) -> str:
        """Wait for a job's end: "done" or the code of its error."""
        eventually(lambda: job in self.ends())
        message = self.sent[job][-1]
        return str(message.error.code) if isinstance(message, Failed) else "done"

    def stages(self, job: EditJob) -> list[tuple[Stage, int]]:
        """Return the stages and steps sent to a job's client so far, without its end."""
        sent = [message for message in self.sent[job] if isinstance(message, Progressed)]
        return [(message.stage, message.step) for message in sent]

    def await_stage(self, job: EditJob, stage: Stage, step: int = 0) -> None:
        eventually(lambda: (stage, step) in self.stages(job))

    def start(self, job: EditJob, steps: int = 0) -> None:
        """Bring a job to the engine and through some of its steps; it is at its next unit then."""
        self.conditioning.let()
        self.await_stage(job, Stage.ENCODING)
        if steps:
            self.engine.gate.let(1 + steps)
            self.await_stage(job, Stage.DENOISING, steps)
        assert self.engine.gate.occupied.wait(60)  # a cancel between two units ends it at once

    def open(self) -> None:
        self.conditioning.open()
        self.engine.gate.open()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.open()
    made.jobs.stop()


def test_every_stage_and_step_of_a_job_is_sent(bench: Bench) -> None:
    bench.open()
    job = bench.submit()
    assert bench.end(job) == "done"
    assert bench.stages(job) == [
        (Stage.LOADING, 0),
        (Stage.CONDITIONING, 0),
        (Stage.ENCODING, 0),
        (Stage.DENOISING, 1),
        (Stage.DENOISING, 2),
        (Stage.DENOISING, 3),
        (Stage.DECODING, 3),
    ]
    assert isinstance(bench.sent[job][-1], Succeeded)
    assert bench.jobs.counts() == (0, 0)


def test_jobs_are_served_in_the_order_of_their_coming(bench: Bench) -> None:
    jobs = [bench.submit() for _ in range(BOUND)]
    bench.open()
    for job in jobs:
        assert bench.end(job) == "done"
    assert list(bench.ends()) == jobs


def test_one_job_is_conditioned_ahead_of_the_engine_and_no_more(bench: Bench) -> None:
    first, second, third = (bench.submit() for _ in range(3))
    bench.start(first)
    bench.conditioning.let(2)
    bench.await_stage(second, Stage.CONDITIONING)
    time.sleep(0.05)
    assert bench.stages(third) == [(Stage.LOADING, 0)]
    bench.engine.gate.let(UNITS)
    assert bench.end(first) == "done"
    bench.await_stage(second, Stage.ENCODING)
    bench.await_stage(third, Stage.CONDITIONING)


def test_a_full_queue_refuses_until_there_is_room(bench: Bench) -> None:
    running = bench.submit()
    bench.start(running)
    waiting = [bench.submit() for _ in range(BOUND)]
    assert bench.jobs.counts() == (BOUND, 1)
    assert bench.end(bench.submit()) == Code.UNAVAILABLE
    bench.jobs.cancel(waiting[1])
    accepted = bench.submit()
    assert bench.end(bench.submit()) == Code.UNAVAILABLE
    bench.open()
    assert [bench.end(job) for job in (running, waiting[0], waiting[2], accepted)] == ["done"] * 4


def test_a_live_id_is_not_given_twice_but_a_dead_one_is(bench: Bench) -> None:
    first = bench.submit("twin")
    assert bench.end(bench.submit("twin")) == Code.INVALID_ARGUMENT
    assert bench.jobs.cancel_id("twin")
    assert bench.end(first) == Code.CANCELLED
    again = bench.submit("twin")
    assert bench.jobs.cancel_id("twin")
    assert bench.end(again) == Code.CANCELLED


def test_jobs_without_an_id_live_side_by_side_and_cannot_be_cancelled_by_it(bench: Bench) -> None:
    jobs = [bench.submit(""), bench.submit("")]
    assert not bench.jobs.cancel_id("")
    bench.open()
    assert [bench.end(job) for job in jobs] == ["done", "done"]


def test_a_waiting_job_is_cancelled_at_once(bench: Bench) -> None:
    running, queued = bench.submit(), bench.submit()
    bench.start(running)
    assert bench.jobs.cancel(queued)
    assert isinstance(bench.sent[queued][-1], Failed)  # without waiting for any thread
    assert bench.jobs.counts() == (0, 1)


def test_a_job_is_cancelled_while_it_is_conditioned(bench: Bench) -> None:
    job, following = bench.submit(), bench.submit()
    bench.await_stage(job, Stage.CONDITIONING)
    assert bench.jobs.cancel(job)
    assert isinstance(bench.sent[job][-1], Failed)
    bench.open()
    assert bench.end(following) == "done"
    assert bench.end(job) == Code.CANCELLED


@pytest.mark.parametrize("steps", [None, 1])
def test_a_job_that_is_cancelled_for_a_reason_ends_with_it(bench: Bench, steps: int | None) -> None:
    job = bench.submit()
    if steps:
        bench.start(job, steps)
    assert bench.jobs.cancel(job, CodedError(Code.UNAVAILABLE, "no room"))
    bench.open()
    assert bench.end(job) == "UNAVAILABLE"


def test_a_conditioned_job_is_cancelled_before_the_engine_is_free(bench: Bench) -> None:
    running, conditioned, following = (bench.submit() for _ in range(3))
    bench.start(running)
    bench.conditioning.let()
    bench.await_stage(conditioned, Stage.CONDITIONING)
    time.sleep(0.05)
    assert bench.jobs.cancel(conditioned)
    assert isinstance(bench.sent[conditioned][-1], Failed)
    bench.await_stage(following, Stage.CONDITIONING)
    bench.open()
    assert bench.end(following) == "done"


@pytest.mark.parametrize("steps", [0, 1, STEPS])
def test_a_running_job_ends_before_its_next_unit_of_work(bench: Bench, steps: int) -> None:
    job = bench.submit()
    bench.start(job, steps)
    assert bench.jobs.cancel(job)
    assert job not in bench.ends()  # the engine is still at work: a step, or after all, decoding
    bench.engine.gate.let()
    assert bench.end(job) == Code.CANCELLED
    bench.conditioning.open()
    bench.engine.gate.let(UNITS)
    assert bench.end(bench.submit()) == "done"  # not a unit of the gate went to waste


def test_cancelling_twice_too_late_or_nothing_changes_nothing(bench: Bench) -> None:
    job = bench.submit("once")
    bench.start(job, 1)
    assert bench.jobs.cancel(job)
    assert bench.jobs.cancel_id("once")
    bench.open()
    assert bench.end(job) == Code.CANCELLED
    assert not bench.jobs.cancel(job)
    assert not bench.jobs.cancel_id("once")
    assert not bench.jobs.cancel_id("never")
    done = bench.submit()
    assert bench.end(done) == "done"
    assert not bench.jobs.cancel(done)
    assert [bench.end(job), bench.end(done)] == [Code.CANCELLED, "done"]


FAILURES = [
    (ZeroDivisionError("secret"), Code.INTERNAL),
    (CodedError(Code.RESOURCE_EXHAUSTED, "out of memory"), Code.RESOURCE_EXHAUSTED),
    (CodedError(Code.UNIMPLEMENTED, "no adapter"), Code.UNIMPLEMENTED),
]


@pytest.mark.parametrize(("error", "code"), FAILURES)
@pytest.mark.parametrize("units", range(UNITS))
def test_a_failing_engine_ends_one_job_only(
    bench: Bench, error: Exception, code: Code, units: int
) -> None:
    bench.conditioning.open()
    failing, following = bench.submit(), bench.submit()
    bench.engine.gate.let(units)
    bench.engine.gate.fail(error)
    assert bench.end(failing) == code
    assert "secret" not in str(bench.sent[failing][-1])
    bench.engine.gate.open()
    assert bench.end(following) == "done"


@pytest.mark.parametrize(("error", "code"), FAILURES)
def test_failing_conditions_end_one_job_only(bench: Bench, error: Exception, code: Code) -> None:
    bench.engine.gate.open()
    failing, following = bench.submit(), bench.submit()
    bench.conditioning.fail(error)
    assert bench.end(failing) == code
    bench.conditioning.open()
    assert bench.end(following) == "done"


def test_what_a_cancelled_job_still_raises_is_logged_and_not_sent(bench: Bench) -> None:
    job = bench.submit()
    bench.start(job, 1)
    bench.jobs.cancel(job)
    bench.engine.gate.fail(ZeroDivisionError("secret"))
    assert bench.end(job) == Code.CANCELLED
    assert "secret" in bench.errors[0]


def test_stopping_ends_every_job_with_an_error(bench: Bench) -> None:
    running, conditioned, queued = (bench.submit() for _ in range(3))
    bench.start(running, 1)
    bench.conditioning.open()
    bench.engine.gate.let()
    bench.jobs.stop()
    for job in (running, conditioned, queued):
        assert bench.end(job) == Code.UNAVAILABLE
    assert bench.end(bench.submit()) == Code.UNAVAILABLE
    assert bench.jobs.counts() == (0, 0)


ACTIONS = st.lists(
    st.one_of(
        st.just(("submit",)),
        st.tuples(st.just("cancel"), st.integers(0, 11)),
        st.tuples(st.sampled_from(["condition", "engine"]), st.integers(1, 3)),
        st.tuples(
            st.sampled_from(["fail conditioning", "fail engine"]),
            st.sampled_from([error for error, _ in FAILURES]),
        ),
        st.just(("pause",)),
    ),
    min_size=5,
    max_size=40,
)


@given(ACTIONS)
@settings(max_examples=150, deadline=None)
def test_in_any_order_every_job_ends_exactly_once(actions: list[tuple[Any, ...]]) -> None:
    bench = Bench()
    jobs: list[EditJob] = []
    promised: set[EditJob] = set()
    for action in actions:
        match action:
            case ("submit",):
                jobs.append(bench.submit(f"id-{len(jobs)}"))
            case ("cancel", index) if index < len(jobs):
                if bench.jobs.cancel_id(f"id-{index}"):
                    promised.add(jobs[index])
            case ("condition", count):
                bench.conditioning.let(count)
            case ("engine", count):
                bench.engine.gate.let(count)
            case ("fail conditioning", error):
                bench.conditioning.fail(error)
            case ("fail engine", error):
                bench.engine.gate.fail(error)
            case ("pause",):
                time.sleep(0.002)
    bench.open()

    for job in jobs:
        end = bench.end(job)
        assert (end == Code.CANCELLED) == (job in promised)
    eventually(lambda: bench.jobs.counts() == (0, 0))
    bench.jobs.stop()
    for job in jobs:
        *before, _ = bench.sent[job]
        assert all(isinstance(message, Progressed) for message in before)
        progress = [message.progress for message in before if isinstance(message, Progressed)]
        assert progress == sorted(progress)
        steps = [step for stage, step in bench.stages(job) if stage is Stage.DENOISING]
        assert steps == list(range(1, len(steps) + 1))
    assert bench.most_live <= BOUND + 2  # one runs, and one is being refused


def test_it_is_known_for_how_long_the_engine_has_given_no_sign_of_life(bench: Bench) -> None:
    assert bench.work.quiet_seconds() == 0
    job = bench.submit("mine")
    assert bench.jobs.running_id() == ""
    bench.start(job, steps=1)
    assert bench.jobs.running_id() == "mine"
    eventually(lambda: bench.work.quiet_seconds() > 0.2)
    let_at = time.perf_counter()
    bench.engine.gate.let()
    bench.await_stage(job, Stage.DENOISING, 2)
    eventually(lambda: bench.work.quiet_seconds() <= time.perf_counter() - let_at)
    bench.open()
    assert bench.end(job) == "done"
    eventually(lambda: bench.work.quiet_seconds() == 0)
    assert bench.jobs.running_id() == ""


def test_it_is_known_for_how_long_conditions_have_been_built(bench: Bench) -> None:
    assert bench.jobs.conditioning_seconds() == 0
    job = bench.submit()
    eventually(lambda: bench.jobs.conditioning_seconds() > 0.2)
    bench.conditioning.let()
    eventually(lambda: bench.jobs.conditioning_seconds() == 0)
    bench.open()
    assert bench.end(job) == "done"


def test_a_cancel_ends_a_job_within_a_unit_of_work(bench: Bench) -> None:
    job, next_ = bench.submit(), bench.submit()
    bench.start(job, steps=1)
    bench.jobs.cancel(job)
    bench.engine.gate.let_layer()
    assert bench.end(job) == "CANCELLED"
    bench.start(next_)
    assert bench.errors == []


def test_a_stop_ends_a_job_within_a_unit_of_work(bench: Bench) -> None:
    job, waiting = bench.submit(), bench.submit()
    bench.start(job, steps=1)
    stopping = threading.Thread(target=bench.jobs.stop)
    stopping.start()
    assert bench.end(waiting) == "UNAVAILABLE"
    bench.engine.gate.let_layer()
    assert bench.end(job) == "UNAVAILABLE"
    bench.conditioning.open()
    stopping.join()


def test_a_lost_device_ends_its_job_and_runs_no_other(bench: Bench) -> None:
    job, waiting = bench.submit(), bench.submit()
    bench.start(job)
    bench.conditioning.open()
    bench.engine.gate.fail(DeviceLostError(Code.INTERNAL, "the device failed"))
    assert bench.end(job) == "INTERNAL"
    eventually(lambda: bool(bench.ended_at_loss))
    bench.engine.gate.open()
    time.sleep(0.05)
    assert bench.ended_at_loss == [1]
    assert waiting not in bench.ends()
    bench.jobs.stop()
    assert bench.end(waiting) == "UNAVAILABLE"


def test_a_lost_device_is_noticed_even_by_a_cancelled_job(bench: Bench) -> None:
    job = bench.submit()
    bench.start(job)
    bench.jobs.cancel(job)
    bench.engine.gate.fail(DeviceLostError(Code.INTERNAL, "the device failed"))
    assert bench.end(job) == "CANCELLED"
    eventually(lambda: bench.ended_at_loss == [1])


@pytest.mark.parametrize("thread", ["conditioning", "engine"])
def test_the_process_does_not_outlive_a_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    victim = {"conditioning": "_may_condition", "engine": "_may_run"}[thread]

    def fail() -> bool:
        raise KeyError("a job that nobody knows")

    monkeypatch.setattr(bench.jobs, victim, fail)
    with bench.jobs._changed:
        bench.jobs._changed.notify_all()
    job = bench.submit()
    bench.open()
    eventually(lambda: ends == [1])
    assert f"{thread} ended unasked" in bench.errors[-1]
    bench.jobs.cancel(job)


def test_the_warm_up_is_the_first_work_of_the_engine_s_thread() -> None:
    threads: list[str] = []
    bench = Bench(lambda: threads.append(threading.current_thread().name))
    step = bench.engine.step

    def note_and_step(state: Any) -> None:
        threads.append(threading.current_thread().name)
        step(state)

    bench.engine.step = note_and_step  # type: ignore[method-assign]
    bench.open()
    try:
        assert threads == ["engine"]  # before any job
        assert bench.end(bench.submit()) == "done"
        assert set(threads) == {"engine"}
        assert len(threads) == 1 + STEPS
    finally:
        bench.jobs.stop()


def test_a_warm_up_that_fails_leaves_no_thread() -> None:
    before = set(threading.enumerate())

    def fail() -> None:
        raise ValueError("too large for the device")

    with pytest.raises(ValueError, match="too large for the device"):
        Bench(fail)
    assert set(threading.enumerate()) <= before  # another test's may end meanwhile


def test_memory_is_given_back_after_a_job_that_ran_out_of_it(bench: Bench) -> None:
    job = bench.submit()
    bench.start(job)
    assert bench.ended_at_giving_back == []
    bench.engine.gate.fail(CodedError(Code.RESOURCE_EXHAUSTED, "out of memory"))
    assert bench.end(job) == Code.RESOURCE_EXHAUSTED
    # Before its client gets the end, so that the next edit finds the memory.
    assert bench.ended_at_giving_back == [0]
    other = bench.submit()
    bench.start(other)
    bench.engine.gate.fail(CodedError(Code.INTERNAL, "x"))
    assert bench.end(other) == Code.INTERNAL
    assert bench.ended_at_giving_back == [0]
