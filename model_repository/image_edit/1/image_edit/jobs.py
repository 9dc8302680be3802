"""The jobs of one engine: a bounded queue, two threads, cancelling, one end for each job."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import perf_counter

from image_edit.conditions import Conditions
from image_edit.errors import Code, DeviceLostError, EditError, cancelled, error_of, invalid
from image_edit.messages import Failed, Message, Progressed, Stage, Succeeded
from image_edit.request import EditRequest

# An engine step or a call of edit_conditions ends long before.
STOP_TIMEOUT_S = 60.0

Condition = Callable[[EditRequest], Conditions]
Run = Callable[
    [EditRequest, Conditions, Mapping[Stage, float]], Generator[Progressed | None, None, Succeeded]
]


@dataclass(eq=False)
class Job:
    """One edit from its submission to its end; only `EditJobs` changes it."""

    request_id: str
    """As the client chose it; "" cannot be cancelled by id."""
    request: EditRequest
    cancel_requested: bool = False
    timings: dict[Stage, float] = field(default_factory=dict)
    """Seconds; LOADING is all waiting, for conditioning and for the engine."""
    _noted: float = field(default_factory=perf_counter)

    def note_time(self, stage: Stage) -> None:
        """Counts the time since it was last noted as spent in a stage."""
        now = perf_counter()
        self.timings[stage] = self.timings.get(stage, 0.0) + now - self._noted
        self._noted = now


class EditJobs:
    """Takes jobs in turn through conditioning and the engine.

    A job waits in the queue, is conditioned, waits for the engine, runs. One job at most is
    conditioned ahead of the one that runs. Whoever ends a job emits its terminal message, and
    the first to do so wins: afterwards nothing is emitted for it.
    """

    def __init__(
        self,
        condition: Condition,
        run: Run,
        emit: Callable[[Job, Message], None],
        log_error: Callable[[str], None],
        on_device_lost: Callable[[], None],
        max_queue_size: int,
        warm_up: Callable[[], None],
        give_back_memory: Callable[[], None],
    ) -> None:
        """Starts the threads, and returns when the engine's thread has warmed up.

        Args:
            condition: builds a request's conditions; blocks; called by one thread of its own.
            run: carries out an edit; advanced by one thread of its own.
            emit: takes a job's messages in order; called under a lock, so it must not block.
            log_error: takes tracebacks of what no client is told.
            on_device_lost: called once, after the end of the job that met with it; no job is run
                any more, and whoever is called must see to the others.
            max_queue_size: most jobs that may wait beside the one that runs.
            warm_up: the first work of the thread that runs jobs. Libraries keep what they learn
                there for that thread alone.
            give_back_memory: called after the end of a job that ran out of memory, when nothing
                holds its tensors any more.

        Raises:
            Exception: whatever the warm-up raised; no thread is left then.
        """
        self._condition = condition
        self._run = run
        self._emit = emit
        self._log_error = log_error
        self._on_device_lost = on_device_lost
        self._warm_up = warm_up
        self._give_back_memory = give_back_memory
        self._warmed_up: Future[None] = Future()
        self.max_queue_size = max_queue_size

        # Guards all below, and the jobs themselves.
        self._changed = threading.Condition()
        self._live: set[Job] = set()
        self._queue: deque[Job] = deque()
        self._conditioned: dict[Job, Conditions] = {}  # at most one
        self._running: Job | None = None
        self._unit_began = perf_counter()
        self._stopping = False

        self._threads = [
            threading.Thread(target=self._repeat, args=(work,), name=name, daemon=True)
            for name, work in (("conditioning", self._condition_next), ("engine", self._run_all))
        ]
        for thread in self._threads:
            thread.start()
        try:
            self._warmed_up.result()
        except BaseException:
            self.stop()
            raise

    def submit(self, job: Job) -> None:
        """Accepts a job or refuses it, and tells its client which.

        It is refused with UNAVAILABLE while the queue is full or the model goes away, and with
        INVALID_ARGUMENT where a live job has the same id.
        """
        with self._changed:
            refusal = self._refusal(job)
            if refusal is not None:
                self._emit(job, Failed(refusal))
                return
            self._live.add(job)
            self._queue.append(job)
            self._emit(job, Progressed(Stage.LOADING, 0, job.request.num_inference_steps, 0.0))
            self._changed.notify_all()

    def cancel(self, job: Job) -> bool:
        """Cancels a job: one that runs ends before its next step, any other at once.

        Returns:
            Whether the job was live; then CANCELLED is how it ends.
        """
        with self._changed:
            if job not in self._live:
                return False
            job.cancel_requested = True
            if job is not self._running:
                self._end(job, Failed(cancelled()))
            return True

    def cancel_id(self, request_id: str) -> bool:
        """As `cancel`, for the live job with that id; there is none for ""."""
        with self._changed:
            job = self._find(request_id) if request_id else None
            return job is not None and self.cancel(job)

    def counts(self) -> tuple[int, int]:
        """How many jobs wait and how many run."""
        with self._changed:
            return self._waiting(), int(self._running is not None)

    def unit_seconds(self) -> float:
        """How long the engine has been at one unit of work, such as a step; 0 where it is idle."""
        with self._changed:
            return perf_counter() - self._unit_began if self._running else 0.0

    def stop(self) -> None:
        """Ends every job with an error and the threads with them."""
        with self._changed:
            self._stopping = True
            for job in list(self._live):
                if job is not self._running:
                    self._end(job, Failed(_going_away()))
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)

    # The lock is held wherever what follows is called, down to _end.

    def _refusal(self, job: Job) -> EditError | None:
        if self._stopping:
            return _going_away()
        if job.request_id and self._find(job.request_id):
            return invalid("request_id", "is that of a job which has not ended")
        if self._waiting() >= self.max_queue_size:
            return EditError(Code.UNAVAILABLE, f"{self._waiting()} edits are waiting already")
        return None

    def _waiting(self) -> int:
        return len(self._live) - int(self._running is not None)

    def _find(self, request_id: str) -> Job | None:
        return next((job for job in self._live if job.request_id == request_id), None)

    def _may_condition(self) -> bool:
        return bool(self._queue) and not self._conditioned

    def _may_run(self) -> bool:
        return bool(self._conditioned)

    def _end(self, job: Job, message: Succeeded | Failed) -> None:
        """Takes a live job out of wherever it is and emits its last message."""
        if job not in self._live:
            return
        self._live.remove(job)
        if job in self._queue:
            self._queue.remove(job)
        self._conditioned.pop(job, None)
        if job is self._running:
            self._running = None
        self._emit(job, Failed(cancelled()) if job.cancel_requested else message)
        self._changed.notify_all()

    def _repeat(self, work: Callable[[], bool]) -> None:
        while work():
            pass

    def _wait_for(self, condition: Callable[[], bool]) -> bool:
        """Waits with the lock held; False when the threads shall end."""
        self._changed.wait_for(lambda: self._stopping or condition())
        return not self._stopping

    def _condition_next(self) -> bool:
        with self._changed:
            if not self._wait_for(self._may_condition):
                return False
            job = self._queue.popleft()
            job.note_time(Stage.LOADING)
            steps = job.request.num_inference_steps
            self._emit(job, Progressed(Stage.CONDITIONING, 0, steps, 0.0))
        try:
            conditions = self._condition(job.request)
        except Exception as error:
            failed = Failed(error_of(error, self._log_error))
            with self._changed:
                self._end(job, failed)
            return True
        with self._changed:
            if job in self._live:  # else it was cancelled meanwhile
                job.note_time(Stage.CONDITIONING)
                self._conditioned[job] = conditions
                self._changed.notify_all()
        return True

    def _run_all(self) -> bool:
        """Warms up and runs jobs until the end; False, so that it is not called again."""
        try:
            self._warm_up()
        except BaseException as error:
            self._warmed_up.set_exception(error)
            return False
        self._warmed_up.set_result(None)
        self._repeat(self._run_next)
        return False

    def _run_next(self) -> bool:
        with self._changed:
            if not self._wait_for(self._may_run):
                return False
            job, conditions = self._conditioned.popitem()
            job.note_time(Stage.LOADING)
            self._running = job
            self._unit_began = perf_counter()
            self._changed.notify_all()
        message = self._carry_out(job, conditions)
        if isinstance(message, Failed) and message.error.code is Code.RESOURCE_EXHAUSTED:
            self._give_back_memory()
        with self._changed:
            self._end(job, message)
        if isinstance(message, Failed) and isinstance(message.error, DeviceLostError):
            self._on_device_lost()
            return False
        return True

    def _carry_out(self, job: Job, conditions: Conditions) -> Succeeded | Failed:
        """Runs a job; between each two units of work it may be cancelled."""
        edit = self._run(job.request, conditions, job.timings)
        try:
            while not (job.cancel_requested or self._stopping):
                self._unit_began = perf_counter()
                message = next(edit)
                if message is not None:
                    with self._changed:
                        self._emit(job, message)
        except StopIteration as end:
            result: Succeeded = end.value
            return result
        except Exception as error:
            return Failed(error_of(error, self._log_error))
        edit.close()
        return Failed(cancelled() if job.cancel_requested else _going_away())


def _going_away() -> EditError:
    return EditError(Code.UNAVAILABLE, "the model is being unloaded")
