"""Owns the requests without an answer yet: a bounded queue, some threads, cancelling."""

import itertools
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from model_kit.crash_only import unfailing
from model_kit.deadlines import Units
from model_kit.errors import Code, CodedError, invalid
from model_kit.laps import Laps
from model_kit.lru import PendingError
from smart_mask.errors import cancelled, error_of
from smart_mask.progress import Progress
from smart_mask.request import MaskRequest
from smart_mask.segmenter import Mask

Sender = TypeVar("Sender")


@dataclass(eq=False)
class MaskJob(Generic[Sender]):
    """One request until its answer."""

    request_id: str
    """Chosen by the client; a request with "" cannot be cancelled by id."""
    request: MaskRequest
    sender: Sender
    """Only the thread that answers the job uses it."""
    cancel_requested: threading.Event = field(default_factory=threading.Event)
    laps: Laps = field(default_factory=Laps)


class MaskJobs(Generic[Sender]):
    """Runs requests in a few threads and answers each exactly once.

    The thread that cancels a waiting request answers it. The thread that runs a request answers
    any other. The request's future decides which.

    A request whose picture another one is computing holds no thread: it waits beside the pool, and
    comes in again when that one has ended.
    """

    def __init__(
        self,
        run: Callable[[MaskRequest, Progress], Mask],
        answer: Callable[[MaskJob[Sender], Mask | CodedError], None],
        has_left: Callable[[Sender], bool],
        log_error: Callable[[str], None],
        *,
        workers: int,
        max_queue_size: int,
    ) -> None:
        """Start without threads; they come with the first requests.

        Args:
            run: carries out a request and notes its stages; may raise PendingError.
            answer: sends a job's one response.
            has_left: whether a job's client has cancelled its call or let its deadline pass.
            log_error: takes tracebacks, which no client may see.
            workers: how many requests run at the same time.
            max_queue_size: how many requests may wait beside those.
        """
        self._run = run
        self._answer = answer
        self._has_left = has_left
        self._log_error = log_error
        self._workers = workers
        self._max_queue_size = max_queue_size
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="mask")
        self._units = Units()
        # No client may wait for ever because the thread that owed it an answer is gone.
        self._take = unfailing("a mask request", self._work, log_error)
        self._wake = unfailing("a mask request", self._resume, log_error)
        self._numbers = itertools.count()
        # Guards the two below. The pool gets only the numbers of jobs, because it keeps its
        # arguments until a thread is free for them, even of a cancelled job.
        self._lock = threading.Lock()
        self._live: dict[int, tuple[MaskJob[Sender], Future[None]]] = {}
        self._stopping = False

    def submit(self, job: MaskJob[Sender]) -> None:
        """Accept a job and answer it later.

        Raises:
            CodedError: UNAVAILABLE: the queue is full, or Triton unloads the model;
                INVALID_ARGUMENT: a job with the same id has no answer yet.
        """
        left = None
        with self._lock:
            if self._stopping:
                raise _unloading()
            if job.request_id and self._find(job.request_id) is not None:
                raise invalid("request_id", "is that of a request which has not been answered")
            if len(self._live) >= self._workers + self._max_queue_size:
                left = self._abandoned()
                if left is None:
                    raise CodedError(
                        Code.UNAVAILABLE, f"{len(self._live)} requests are waiting already"
                    )
            number = next(self._numbers)
            # The lock makes a thread that begins at once wait before it looks the number up.
            self._live[number] = job, self._pool.submit(self._take, number)
        if left is not None:
            self._end(left, cancelled())

    def cancel_id(self, request_id: str) -> bool:
        """Cancel the job with that id; "" names none.

        Returns:
            Whether there was one. If so, it ends with CANCELLED: at once if it waits, before its
            next stage if it runs.
        """
        with self._lock:
            number = self._find(request_id) if request_id else None
            if number is None:
                return False
            job, future = self._live[number]
            job.cancel_requested.set()
            waited = future.cancel()
        if waited:
            self._end(number, cancelled())
        return True

    def counts(self) -> tuple[int, int]:
        """Return how many jobs wait and how many run."""
        with self._lock:
            running = sum(future.running() for _, future in self._live.values())
            return len(self._live) - running, running

    def longest_seconds(self) -> float:
        """Return how long a thread has been at one request; 0 if none is at any."""
        return self._units.longest_s()

    def stop(self) -> None:
        """End every job: the waiting ones with an error, the running ones once they are done."""
        with self._lock:
            self._stopping = True
            waiting = [number for number, (_, future) in self._live.items() if future.cancel()]
        for number in waiting:
            self._end(number, _unloading())
        self._pool.shutdown()

    def _abandoned(self) -> int | None:
        """Cancel the oldest waiting job whose client has left, and return it; None if none has.

        Only a full queue asks, because each question goes to Triton and back. The lock, which the
        caller holds, keeps each sender from being used: a thread that has sent its last response
        makes Triton forget it.
        """
        for number, (job, future) in self._live.items():
            waits = not (future.running() or future.done())
            if waits and self._has_left(job.sender) and future.cancel():
                return number
        return None

    def _find(self, request_id: str) -> int | None:
        return next(
            (number for number, (job, _) in self._live.items() if job.request_id == request_id),
            None,
        )

    def _work(self, number: int) -> None:
        with self._lock:
            job, _ = self._live[number]

        def check() -> None:
            if job.cancel_requested.is_set() or self._has_left(job.sender):
                raise cancelled()

        result: Mask | CodedError
        try:
            progress = Progress(job.laps, check)
            progress.note("queue")
            with self._units.unit():
                result = self._run(job.request, progress)
            check()
        except PendingError as pending:
            self._park(number, pending.ends)
            return
        except Exception as error:
            result = error_of(error, self._log_error)
        self._end(number, result)

    def _park(self, number: int, ends: Future[Any]) -> None:
        """Have a request wait for the end of another one's work, without a thread."""
        parked: Future[None] = Future()
        with self._lock:
            job, _ = self._live[number]
            waits = not (job.cancel_requested.is_set() or self._stopping)
            if waits:
                # From here on, whoever cancels it answers it.
                self._live[number] = job, parked
        if not waits:
            self._end(number, _unloading())
            return
        ends.add_done_callback(lambda ended: self._wake(number, parked, ended))

    def _resume(self, number: int, parked: Future[None], ended: Future[Any]) -> None:
        error = ended.exception()
        with self._lock:
            if not parked.set_running_or_notify_cancel():
                return  # whoever cancelled it has answered it
            if error is None or _was_cancelled(error):
                job, _ = self._live[number]
                self._live[number] = job, self._pool.submit(self._take, number)
                return
        assert isinstance(error, Exception)
        self._end(number, error_of(error, self._log_error))

    def _end(self, number: int, result: Mask | CodedError) -> None:
        """Answer a job; one that was cancelled has no other answer than that, however late."""
        with self._lock:
            job, _ = self._live.pop(number)
            if job.cancel_requested.is_set():
                result = cancelled()
        try:
            self._answer(job, result)
        except Exception as error:
            # The client must not wait for ever, for example when shared memory is full.
            self._apologise(job, error_of(error, self._log_error))

    def _apologise(self, job: MaskJob[Sender], error: CodedError) -> None:
        try:
            self._answer(job, error)
        except Exception:
            self._log_error(traceback.format_exc())


def _was_cancelled(error: BaseException) -> bool:
    return isinstance(error, CodedError) and error.code is Code.CANCELLED


def _unloading() -> CodedError:
    return CodedError(Code.UNAVAILABLE, "the model is being unloaded")
