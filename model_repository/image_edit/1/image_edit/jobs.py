"""Owns the jobs of one engine: a bounded queue, two threads, cancelling, one end for each job."""

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field

from image_edit.conditions import Conditions
from image_edit.errors import DeviceLostError, cancelled, error_of, unloading
from image_edit.messages import Failed, Message, Progressed, Stage, Succeeded
from image_edit.request import EditRequest
from image_edit.work import GivenUpError, Work
from model_kit.crash_only import guarded
from model_kit.deadlines import Units
from model_kit.errors import Code, CodedError, invalid
from model_kit.laps import Laps
from model_kit.memory import Returns

# Far longer than an engine step or a call of edit_conditions takes.
STOP_TIMEOUT_S = 60.0
# Of each byte of the picture and its conditions, roughly: files, results, debug pictures.
_BYTES_OF_EDIT = 4

BuildConditions = Callable[[EditRequest], Conditions]
Run = Callable[[EditRequest, Conditions, Laps], Generator[Progressed | None, None, Succeeded]]


@dataclass(eq=False)
class EditJob:
    """One edit from its submission to its end; only `EditJobs` and the run change it."""

    request_id: str
    """Chosen by the client; a job with "" cannot be cancelled by id."""
    request: EditRequest
    cancelled_by: CodedError | None = None
    """What it ends with before its time; None: nobody has cancelled it."""
    laps: Laps = field(default_factory=Laps)
    """By `Stage`; LOADING is all waiting, for conditioning and for the engine."""


class EditJobs:
    """Takes jobs in turn through conditioning and the engine.

    A job waits in the queue, is conditioned, waits for the engine, runs. At most one job is
    conditioned ahead of the one that runs. The thread that ends a job emits its terminal message.
    The first one wins: afterwards nothing is emitted for that job.
    """

    def __init__(
        self,
        build_conditions: BuildConditions,
        run: Run,
        work: Work,
        emit: Callable[[EditJob, Message], None],
        log_error: Callable[[str], None],
        on_device_lost: Callable[[], None],
        max_queue_size: int,
        warm_up: Callable[[], None],
        give_back_memory: Callable[[], None],
    ) -> None:
        """Start the threads, and return when the engine's thread has warmed up.

        Args:
            build_conditions: builds a request's conditions; blocks; one thread of its own calls
                it.
            run: carries out an edit; another thread of its own advances it.
            work: what that thread is at; `run` calls its `go_on`.
            emit: takes a job's messages in order; called under a lock, so it must not block.
            log_error: takes tracebacks, which no client may see.
            on_device_lost: called once, after the end of the job that lost the device. No job
                runs any more; this function must end the others.
            max_queue_size: how many jobs may wait beside the one that runs.
            warm_up: the first work of the thread that runs jobs. Libraries keep what they learn
                there for that thread alone.
            give_back_memory: called after the end of a job that ran out of memory, when nothing
                holds its tensors any more.

        Raises:
            Exception: whatever the warm-up raised; no thread is left then.
        """
        self._build_conditions = build_conditions
        self._run = run
        self._work = work
        self._emit = emit
        self._log_error = log_error
        self._on_device_lost = on_device_lost
        self._max_queue_size = max_queue_size
        self._warm_up = warm_up
        self._give_back_memory = give_back_memory
        self._warmed_up: Future[None] = Future()
        self._conditioning = Units()
        self._returns = Returns()

        # Guards all below, and the jobs themselves.
        self._changed = threading.Condition()
        self._live: set[EditJob] = set()
        self._queue: deque[EditJob] = deque()
        self._conditioned: dict[EditJob, Conditions] = {}  # at most one
        self._running: EditJob | None = None
        self._stopping = False
        self._device_lost = False

        self._threads = [
            threading.Thread(
                target=guarded(name, run, lambda: self._stopping or self._device_lost, log_error),
                name=name,
                daemon=True,
            )
            for name, run in (("conditioning", self._condition_all), ("engine", self._run_all))
        ]
        for thread in self._threads:
            thread.start()
        try:
            self._warmed_up.result()
        except BaseException:
            self.stop()
            raise

    def submit(self, job: EditJob) -> None:
        """Accept a job or refuse it, and emit which.

        UNAVAILABLE refuses it while the queue is full or Triton unloads the model;
        INVALID_ARGUMENT refuses it while a live job has the same id.
        """
        with self._changed:
            if error := self._reason_to_refuse(job):
                self._emit(job, Failed(error))
                return
            self._live.add(job)
            self._queue.append(job)
            self._emit(job, Progressed(Stage.LOADING, 0, job.request.num_inference_steps, 0.0))
            self._changed.notify_all()

    def cancel(self, job: EditJob, reason: CodedError | None = None) -> bool:
        """Cancel a job. A running one ends before the engine's next layer, any other at once.

        Args:
            job: any.
            reason: what it ends with; None: CANCELLED, because its client wants it to end.

        Returns:
            Whether the job was live.
        """
        with self._changed:
            if job not in self._live:
                return False
            job.cancelled_by = job.cancelled_by or reason or cancelled()
            if job is not self._running:
                self._end(job, Failed(job.cancelled_by))
            return True

    def cancel_id(self, request_id: str) -> bool:
        """Cancel the live job with that id, as `cancel` does; "" names none."""
        with self._changed:
            job = self._find(request_id) if request_id else None
            return job is not None and self.cancel(job)

    def counts(self) -> tuple[int, int]:
        """Return how many jobs wait and how many run."""
        with self._changed:
            return self._waiting(), int(self._running is not None)

    def conditioning_seconds(self) -> float:
        """Return how long the conditions of one job have been being built; 0 if none are."""
        return self._conditioning.longest_s()

    def running_id(self) -> str:
        """Return the id of the job that the engine works on; "" if it is idle, or has no id."""
        with self._changed:
            return self._running.request_id if self._running else ""

    def stop(self) -> None:
        """End every job with an error, and both threads."""
        with self._changed:
            self._stopping = True
            for job in list(self._live):
                if job is not self._running:
                    self._end(job, Failed(unloading()))
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)

    # The caller of each method below holds the lock, down to `_wait_for`.

    def _reason_to_refuse(self, job: EditJob) -> CodedError | None:
        if self._stopping:
            return unloading()
        if job.request_id and self._find(job.request_id):
            return invalid("request_id", "is that of a job which has not ended")
        if self._waiting() >= self._max_queue_size:
            return CodedError(Code.UNAVAILABLE, f"{self._waiting()} edits are waiting already")
        return None

    def _waiting(self) -> int:
        return len(self._live) - int(self._running is not None)

    def _find(self, request_id: str) -> EditJob | None:
        return next((job for job in self._live if job.request_id == request_id), None)

    def _may_condition(self) -> bool:
        return bool(self._queue) and not self._conditioned

    def _may_run(self) -> bool:
        return bool(self._conditioned)

    def _end(self, job: EditJob, message: Succeeded | Failed) -> None:
        """Remove a live job from wherever it is and emit its last message."""
        if job not in self._live:
            return
        self._live.remove(job)
        if job in self._queue:
            self._queue.remove(job)
        self._conditioned.pop(job, None)
        if job is self._running:
            self._running = None
        self._emit(job, Failed(job.cancelled_by) if job.cancelled_by else message)
        self._changed.notify_all()

    def _wait_for(self, until: Callable[[], bool]) -> bool:
        """Wait until something is true; return False if the threads must end."""
        self._changed.wait_for(lambda: self._stopping or until())
        return not self._stopping

    def _condition_all(self) -> None:
        while self._condition_next():
            pass

    def _run_all(self) -> None:
        try:
            self._warm_up()
        except BaseException as error:
            self._stopping = True
            self._warmed_up.set_exception(error)
            return
        self._warmed_up.set_result(None)
        while self._run_next():
            pass

    def _condition_next(self) -> bool:
        with self._changed:
            if not self._wait_for(self._may_condition):
                return False
            job = self._queue.popleft()
            job.laps.note(Stage.LOADING)
            steps = job.request.num_inference_steps
            self._emit(job, Progressed(Stage.CONDITIONING, 0, steps, 0.0))
        try:
            with self._conditioning.unit():
                conditions = self._build_conditions(job.request)
        except Exception as error:
            failed = Failed(error_of(error, self._log_error))
            with self._changed:
                self._end(job, failed)
            return True
        with self._changed:
            if job in self._live:  # a client may have cancelled it meanwhile
                job.laps.note(Stage.CONDITIONING)
                self._conditioned[job] = conditions
                self._changed.notify_all()
        return True

    def _run_next(self) -> bool:
        with self._changed:
            if not self._wait_for(self._may_run):
                return False
            job, conditions = self._conditioned.popitem()
            job.laps.note(Stage.LOADING)
            self._running = job
            self._changed.notify_all()
        message = self._carry_out(job, conditions)
        if isinstance(message, Failed) and message.error.code is Code.RESOURCE_EXHAUSTED:
            self._give_back_memory()
        with self._changed:
            self._end(job, message)
        size = conditions.picture.nbytes + sum(each.images.nbytes for each in conditions.regions)
        del conditions
        self._returns.freed(_BYTES_OF_EDIT * size)
        if isinstance(message, Failed) and isinstance(message.error, DeviceLostError):
            self._device_lost = True
            self._on_device_lost()
            return False
        return True

    def _carry_out(self, job: EditJob, conditions: Conditions) -> Succeeded | Failed:
        """Run a job; a client may cancel it within every unit of work."""
        edit = self._run(job.request, conditions, job.laps)
        self._work.begin(lambda: not (job.cancelled_by or self._stopping))
        try:
            while True:
                self._work.go_on()
                message = next(edit)
                if message is not None:
                    with self._changed:
                        self._emit(job, message)
        except StopIteration as end:
            result: Succeeded = end.value
            return result
        except GivenUpError:
            return Failed(job.cancelled_by or unloading())
        except Exception as error:
            return Failed(error_of(error, self._log_error))
        finally:
            edit.close()
            self._work.end()
