from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np
import pytest

from model_kit.errors import Code, CodedError
from model_kit.lru import PendingError
from smart_mask.jobs import MaskJob, MaskJobs
from smart_mask.request import MaskRequest
from smart_mask.segmenter import Mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from smart_mask.progress import Progress

TIMEOUT_S = 60.0
MASK = Mask(b"png", "id", 0.9, cached=False, detections=1, box=[0, 0, 1, 1], points_missed=[])


class Client:
    """What a job's sender stands for: whether it has left, and what it was answered."""

    def __init__(self) -> None:
        self.left = False
        self.answers: list[Mask | CodedError] = []
        self.answered = threading.Event()

    def wait(self) -> Mask | CodedError:
        assert self.answered.wait(TIMEOUT_S)
        assert len(self.answers) == 1
        return self.answers[0]

    def code(self) -> Code:
        answer = self.wait()
        assert isinstance(answer, CodedError)
        return answer.code


class Bench:
    """Jobs whose work waits at a gate, and is then done or raises."""

    def __init__(self, workers: int = 1, max_queue_size: int = 4) -> None:
        self.gate = threading.Event()
        self.running = threading.Semaphore(0)
        self.error: Exception | None = None
        self.other: Future[None] = Future()
        self.pending: list[bool] = []
        """Of the next runs, whether another request is at the same picture."""
        self.worked = False
        self.at_last_look: Callable[[], object] = lambda: None
        """Called when a thread looks for a client once more, after its work."""
        self.log: list[str] = []
        self.unsendable: type = type(None)
        self.jobs: MaskJobs[Client] = MaskJobs(
            self._run,
            self._answer,
            self._has_left,
            self.log.append,
            workers=workers,
            max_queue_size=max_queue_size,
        )

    def submit(self, request_id: str = "") -> Client:
        client = Client()
        self.jobs.submit(MaskJob(request_id, REQUEST, client))
        return client

    def submit_running(self, request_id: str = "") -> Client:
        client = self.submit(request_id)
        assert self.running.acquire(timeout=TIMEOUT_S)
        return client

    def _run(self, request: MaskRequest, progress: Progress) -> Mask:
        assert request is REQUEST
        self.running.release()
        while not self.gate.wait(0.002):
            progress.check()
        progress.laps.note("work")
        if self.pending.pop(0) if self.pending else False:
            raise PendingError(self.other)
        if self.error:
            raise self.error
        self.worked = True
        return MASK

    def _has_left(self, client: Client) -> bool:
        if self.worked:
            self.at_last_look()
        return client.left

    def _answer(self, job: MaskJob[Client], result: Mask | CodedError) -> None:
        if isinstance(result, self.unsendable):
            raise MemoryError
        job.sender.answers.append(result)
        job.sender.answered.set()


REQUEST = MaskRequest(
    image=b"file",
    image_id="",
    points=np.zeros((1, 2), np.float32),
    positive=np.ones(1, np.bool_),
    box=None,
    guidance=None,
    border=0,
    blur=False,
)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.gate.set()
    made.jobs.stop()


def test_a_job_is_answered_with_its_mask_and_its_times(bench: Bench) -> None:
    bench.gate.set()
    assert bench.submit().wait() is MASK
    assert bench.jobs.counts() == (0, 0)


def test_jobs_run_side_by_side_as_far_as_there_are_workers() -> None:
    bench = Bench(workers=3)
    clients = [bench.submit_running() for _ in range(3)]
    waiting = bench.submit()
    assert bench.jobs.counts() == (1, 3)
    bench.gate.set()
    assert [client.wait() for client in (*clients, waiting)] == [MASK] * 4
    bench.jobs.stop()


def test_it_is_known_for_how_long_a_thread_has_been_at_one_request(bench: Bench) -> None:
    assert bench.jobs.longest_seconds() == 0
    first = bench.submit_running()
    waiting = bench.submit()
    assert bench.jobs.longest_seconds() > 0
    bench.gate.set()
    assert [first.wait(), waiting.wait()] == [MASK] * 2
    # The answer goes out behind the work.
    assert bench.jobs.longest_seconds() == 0


def test_a_full_queue_refuses(bench: Bench) -> None:
    bench.submit_running()
    clients = [bench.submit() for _ in range(4)]
    with pytest.raises(CodedError) as caught:
        bench.submit()
    assert caught.value.code is Code.UNAVAILABLE
    bench.gate.set()
    assert all(client.wait() is MASK for client in clients)
    assert bench.submit().wait() is MASK


def test_whoever_has_left_gives_up_a_place_in_a_full_queue(bench: Bench) -> None:
    bench.submit_running()
    clients = [bench.submit() for _ in range(4)]
    for left in (clients[1], clients[3]):
        left.left = True
        clients.append(bench.submit())
        assert left.code() is Code.CANCELLED
    with pytest.raises(CodedError, match="5 requests are waiting already"):
        bench.submit()
    bench.gate.set()
    assert [client.wait() for client in clients if not client.left] == [MASK] * 4
    assert bench.jobs.counts() == (0, 0)


def test_a_live_id_cannot_be_used_again(bench: Bench) -> None:
    client = bench.submit_running("a")
    with pytest.raises(CodedError) as caught:
        bench.submit("a")
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert "request_id" in str(caught.value)
    bench.submit("")
    bench.submit("")
    bench.gate.set()
    assert client.wait() is MASK
    assert bench.submit("a").wait() is MASK


def test_a_waiting_job_is_cancelled_at_once_and_never_runs(bench: Bench) -> None:
    first = bench.submit_running("first")
    second = bench.submit("second")
    assert bench.jobs.cancel_id("second")
    assert second.code() is Code.CANCELLED
    assert bench.jobs.counts() == (0, 1)
    bench.gate.set()
    assert first.wait() is MASK
    assert not bench.running.acquire(blocking=False)


def test_a_running_job_is_cancelled_before_its_next_stage(bench: Bench) -> None:
    client = bench.submit_running("a")
    assert bench.jobs.cancel_id("a")
    assert client.code() is Code.CANCELLED
    assert bench.jobs.counts() == (0, 0)


def test_a_cancel_that_nobody_looks_for_any_more_still_counts(bench: Bench) -> None:
    told: list[bool] = []
    bench.at_last_look = lambda: told.append(bench.jobs.cancel_id("a"))
    bench.gate.set()
    assert bench.submit("a").code() is Code.CANCELLED
    assert told == [True]


def test_an_unknown_or_empty_id_cancels_nothing(bench: Bench) -> None:
    client = bench.submit_running("")
    assert not bench.jobs.cancel_id("")
    assert not bench.jobs.cancel_id("other")
    bench.gate.set()
    assert client.wait() is MASK
    assert not bench.jobs.cancel_id("")


def test_a_job_whose_client_has_left_stops(bench: Bench) -> None:
    client = bench.submit_running()
    client.left = True
    assert client.code() is Code.CANCELLED


def test_a_fault_is_logged_and_its_client_learns_no_details(bench: Bench) -> None:
    bench.error = RuntimeError("secret")
    bench.gate.set()
    client = bench.submit()
    assert client.code() is Code.INTERNAL
    assert "secret" not in str(client.answers[0])
    assert "secret" in bench.log[0]
    bench.error = None
    assert bench.submit().wait() is MASK


def test_a_cancelled_job_is_let_go_at_once(bench: Bench) -> None:
    """Its pictures may be large, and the thread that would have run it busy for long."""
    bench.submit_running()
    client = Client()
    job = MaskJob("a", REQUEST, client)
    alive = weakref.ref(job)
    bench.jobs.submit(job)
    assert bench.jobs.cancel_id("a")
    assert client.code() is Code.CANCELLED
    del job
    gc.collect()
    assert alive() is None


def test_an_answer_that_cannot_be_sent_becomes_an_error(bench: Bench) -> None:
    bench.gate.set()
    bench.unsendable = Mask
    client = bench.submit()
    assert client.code() is Code.INTERNAL
    assert "MemoryError" in bench.log[0]
    bench.unsendable = object
    second = bench.submit()
    bench.jobs.stop()
    assert not second.answers
    assert len(bench.log) == 3
    assert bench.jobs.counts() == (0, 0)


def test_stopping_answers_everyone(bench: Bench) -> None:
    running = bench.submit_running()
    waiting = [bench.submit() for _ in range(3)]
    stopping = threading.Thread(target=bench.jobs.stop)
    stopping.start()
    assert {client.code() for client in waiting} == {Code.UNAVAILABLE}
    bench.gate.set()
    assert running.wait() is MASK
    stopping.join(TIMEOUT_S)
    assert not stopping.is_alive()
    with pytest.raises(CodedError, match="unloaded"):
        bench.submit()


def test_each_of_many_jobs_is_answered_once_whatever_is_cancelled_when() -> None:
    bench = Bench(workers=4, max_queue_size=1000)
    bench.gate.set()
    clients = []
    for number in range(600):
        clients.append(bench.submit(str(number)))
        bench.jobs.cancel_id(str(number - number % 7))
    kinds = Counter(type(client.wait()).__name__ for client in clients)
    assert set(kinds) <= {"Mask", "CodedError"}
    assert kinds["Mask"] > 0
    assert bench.jobs.counts() == (0, 0)
    bench.jobs.stop()


def parked(bench: Bench, request_id: str = "parked") -> Client:
    """Return a request that waits for another one's work, while the only thread is free."""
    bench.pending = [True]
    bench.gate.set()
    client = bench.submit_running(request_id)
    # The next request runs, so the first one holds no thread any more.
    assert bench.submit().wait() is MASK
    assert bench.jobs.counts() == (1, 0)
    assert not client.answered.is_set()
    return client


def test_a_request_for_a_picture_that_is_being_computed_holds_no_thread(bench: Bench) -> None:
    client = parked(bench)
    bench.other.set_result(None)
    assert client.wait() is MASK


def test_a_request_that_waits_for_another_shares_its_error(bench: Bench) -> None:
    client = parked(bench)
    bench.other.set_exception(CodedError(Code.INVALID_ARGUMENT, "IMAGE: nothing"))
    assert client.code() is Code.INVALID_ARGUMENT


def test_a_request_that_waits_for_a_cancelled_one_takes_over(bench: Bench) -> None:
    client = parked(bench)
    bench.other.set_exception(CodedError(Code.CANCELLED, "as wanted"))
    assert client.wait() is MASK


def test_a_request_that_waits_for_another_is_cancelled_at_once(bench: Bench) -> None:
    client = parked(bench)
    assert bench.jobs.cancel_id("parked")
    assert client.code() is Code.CANCELLED
    bench.other.set_result(None)
    assert bench.jobs.counts() == (0, 0)


class CancelledThen(threading.Event):
    """Not set when it is asked for the first time; another thread cancels the job just then."""

    def __init__(self, cancel: Callable[[], object]) -> None:
        super().__init__()
        self._cancel = cancel
        self.meddler: threading.Thread | None = None

    def is_set(self) -> bool:
        was_set = super().is_set()
        if self.meddler is None and sys._getframe(1).f_code.co_name == "_park":
            self.meddler = threading.Thread(target=self._cancel)
            self.meddler.start()
            # It has cancelled the job already, or waits for the lock.
            self.meddler.join(0.2)
        return was_set


def test_a_cancel_while_a_request_begins_to_wait_answers_it_once(bench: Bench) -> None:
    bench.pending = [True]
    client = Client()
    requested = CancelledThen(lambda: bench.jobs.cancel_id("parked"))
    bench.jobs.submit(MaskJob("parked", REQUEST, client, cancel_requested=requested))
    bench.gate.set()
    assert client.code() is Code.CANCELLED
    assert requested.meddler is not None
    requested.meddler.join()
    bench.other.set_result(None)
    assert bench.jobs.counts() == (0, 0)
    assert bench.log == []


def test_unloading_ends_a_request_that_would_wait_for_another(bench: Bench) -> None:
    bench.pending = [True]
    client = bench.submit_running()
    stopping = threading.Thread(target=bench.jobs.stop)
    stopping.start()
    deadline = time.monotonic() + TIMEOUT_S
    while not bench.jobs._stopping:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    bench.gate.set()
    assert client.code() is Code.UNAVAILABLE
    stopping.join()
    bench.other.set_result(None)
    assert bench.log == []


def test_unloading_ends_a_request_that_waits_for_another(bench: Bench) -> None:
    client = parked(bench)
    bench.jobs.stop()
    assert client.code() is Code.UNAVAILABLE
    bench.other.set_result(None)
