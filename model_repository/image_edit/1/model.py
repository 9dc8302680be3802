"""Owns Triton's side of image_edit: requests in, responses out; image_edit/ does the work."""

import json
import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import triton_python_backend_utils as pb_utils

try:
    from model_kit.errors import invalid
except ModuleNotFoundError:
    raise ImportError(
        "the Python that runs Triton's models lacks the package model_kit; "
        "in ArtMancer's folder run: pip install --no-deps ."
    ) from None

from image_edit.conditions import DEBUG_OUTPUT, OUTPUTS, Conditions, read_conditions
from image_edit.engine.cpu import tune_for_cpu
from image_edit.errors import error_of, error_of_conditions
from image_edit.jobs import EditJob, EditJobs
from image_edit.loading import loading
from image_edit.messages import Answered, Failed, Message, Progressed, Stage, Succeeded
from image_edit.request import MAX_ELEMENTS, EditRequest, read_edit_request
from image_edit.run import EditRunner
from image_edit.settings import EditSettings
from image_edit.wire import EditWire
from image_edit.work import Work
from model_kit import deadlines, heartbeat, internal
from model_kit.collector import making_what_stays
from model_kit.deadlines import STUCK_S
from model_kit.errors import CodedError
from model_kit.parameters import Parameters
from model_kit.tensors import Tensors, read_inputs, read_outputs, read_text, text_array

if TYPE_CHECKING:
    from image_edit.engine.bundle import Bundle


class TritonPythonModel:
    """Takes requests and returns; three threads carry out the jobs and send their responses."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle, warm it up and start; any exception fails the load."""
        self._settings = EditSettings.from_parameters(Parameters.of_model(args))
        self._on_gpu = args["model_instance_kind"] == "GPU"
        device = f"cuda:{args['model_instance_device_id']}" if self._on_gpu else "cpu"
        if not self._on_gpu:
            tune_for_cpu()
        log_error = pb_utils.Logger.log_error
        self._work = Work()
        with loading(pb_utils.Logger.log_info) as on_stage:
            # Load in a thread that ends. OpenMP keeps a thread pool for every thread that has
            # computed. Two pools are more threads than cores, and then libgomp never spins,
            # whatever GOMP_SPINCOUNT says.
            with ThreadPoolExecutor(1) as thread:
                bundle, runner = thread.submit(
                    _load, self._settings, device, on_stage, self._work.go_on
                ).result()
            image_area = self._settings.image_area or bundle.image_area
            image_areas = {} if self._settings.image_area else bundle.image_areas
            self._about = {
                "model": bundle.name,
                "adapters": list(bundle.adapters),
                "image_area": image_area,
            }
            self._wire: EditWire[Hashable, pb_utils.InferenceResponse] = EditWire(
                _response,
                pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
                on_left=self._client_left,
                on_unsendable=self._unsendable,
                log_error=log_error,
            )
            self._jobs = EditJobs(
                lambda request: _conditions(
                    request, image_areas.get(request.task_type, image_area)
                ),
                runner.run,
                self._work,
                self._wire.post,
                log_error,
                self._exit,
                self._settings.max_queue_size,
                # In the engine's thread, because cuDNN's plans and torch's configuration belong
                # to the thread that made them.
                warm_up=lambda: runner.warm_up(self._settings.warm_up_sizes, on_stage),
                give_back_memory=runner.give_back_memory,
            )
        self._beat = heartbeat.start(log_error, self._wire.is_busy)

    def execute(self, requests: list["pb_utils.InferenceRequest"]) -> None:
        """Enqueue edits and carry out cancels; the wire answers, now or later."""
        for request in requests:
            self._take(request)

    def finalize(self) -> None:
        """End every job with an error."""
        self._stop()
        self._beat()

    def _stop(self) -> None:
        self._jobs.stop()
        self._wire.stop()

    def _exit(self) -> None:
        """End every job and then this process, so that its watcher starts a new one."""

        def end() -> None:
            self._stop()
            os._exit(1)

        # A thread of its own, because `_stop` waits for the engine's thread.
        threading.Thread(target=end, name="exit").start()

    def _take(self, request: "pb_utils.InferenceRequest") -> None:
        sender = request.get_response_sender()
        try:
            tensors = read_inputs(request, MAX_ELEMENTS)
            if "CANCEL" not in tensors:
                job = EditJob(request.request_id(), self._read(tensors))
                self._wire.open(job, sender)
                self._jobs.submit(job)
                return
            message: Message = self._cancel(tensors)
        except Exception as error:
            message = Failed(error_of(error, pb_utils.Logger.log_error))
        self._wire.open(sender, sender)
        self._wire.post(sender, message)

    def _read(self, tensors: Tensors) -> EditRequest:
        return read_edit_request(
            tensors,
            static_schedule=self._settings.static_schedule,
            max_bytes=self._settings.max_request_bytes,
        )

    def _cancel(self, tensors: Tensors) -> Answered:
        if len(tensors) > 1:
            raise invalid("CANCEL", "must be the only input")
        request_id = read_text(tensors, "CANCEL")
        self._end_if_stuck()
        if not request_id:
            deadlines.refuse_if_late(
                "the building of an edit's conditions", self._jobs.conditioning_seconds()
            )
            if self._on_gpu:
                deadlines.refuse_if_late("a layer of the engine", self._work.quiet_seconds())
        cancelled = self._jobs.cancel_id(request_id)
        waiting, running = self._jobs.counts()
        return Answered(
            json.dumps(
                {
                    **self._about,
                    "cancelled": cancelled,
                    "waiting": waiting,
                    "running": running,
                    "running_id": self._jobs.running_id(),
                    "quiet_seconds": round(self._work.quiet_seconds(), 3),
                    "max_queue_size": self._settings.max_queue_size,
                }
            )
        )

    def _end_if_stuck(self) -> None:
        """End the process where a thread will not come back; its watcher starts a new one.

        A driver may wait for ever for a GPU that fell off the bus, without any error. A CPU may
        well take minutes for a layer of a large picture.
        """
        stuck = "the GPU" if self._on_gpu and self._work.quiet_seconds() > STUCK_S else None
        stuck = "edit_conditions" if self._jobs.conditioning_seconds() > STUCK_S else stuck
        if stuck is not None:
            pb_utils.Logger.log_error(f"image_edit: {stuck} does not answer, ending the process")
            os._exit(1)

    def _client_left(self, stream: Hashable) -> None:
        if isinstance(stream, EditJob):
            self._jobs.cancel(stream)

    def _unsendable(self, stream: Hashable, error: CodedError) -> None:
        if isinstance(stream, EditJob):
            self._jobs.cancel(stream, error)


def _load(
    settings: EditSettings,
    device: str,
    on_stage: Callable[[str], None],
    on_layer: Callable[[], None],
) -> tuple["Bundle", EditRunner]:
    """Load the bundle and report each stage."""
    on_stage("importing the packages")
    # Imported late, because torch reads the environment that `tune_for_cpu` sets.
    with making_what_stays():
        from image_edit.engine.bundle import load_bundle
        from image_edit.engine.engine import EditEngine

        bundle = load_bundle(settings.bundle, settings.tuning, device, on_stage, on_layer)
        engine = EditEngine(bundle, settings.condition_area, settings.scheduler_shift)
    return bundle, EditRunner(engine, bundle.name)


def _conditions(request: EditRequest, image_area: int) -> Conditions:
    """Call edit_conditions to build the conditions of a request.

    Args:
        request: the client's.
        image_area: pixels of the largest picture to generate.

    Raises:
        CodedError: the one that edit_conditions answered with.
    """
    numbers = {"WIDTH": request.width, "HEIGHT": request.height, "IMAGE_AREA": image_area}
    response = pb_utils.InferenceRequest(
        model_name="edit_conditions",
        requested_output_names=[*OUTPUTS, *([DEBUG_OUTPUT] if request.debug else [])],
        inputs=[
            *(
                pb_utils.Tensor(name, np.array(elements, dtype=np.object_))
                for name, elements in request.condition_inputs.items()
            ),
            *(
                pb_utils.Tensor(name, np.array([number], np.int32))
                for name, number in numbers.items()
                if number is not None
            ),
        ],
        # `as_numpy` refuses tensors on the GPU, where Triton leaves a GPU model's outputs.
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        parameters=internal.parameters(),
    ).exec()
    if response.has_error():
        raise error_of_conditions(response.error().message())
    return read_conditions(read_outputs(response))


def _response(message: Message) -> "pb_utils.InferenceResponse":
    match message:
        case Progressed():
            return _tensors(
                message.stage,
                message.step,
                message.total_steps,
                message.progress,
                PREVIEW_IMAGE=message.preview,
                INFO=message.info,
            )
        case Succeeded():
            total = message.total_steps
            return _tensors(Stage.DONE, total, total, 1.0, IMAGE=message.image, INFO=message.info)
        case Answered():
            return _tensors(Stage.DONE, 0, 0, 1.0, INFO=message.info)
        case Failed():
            code = getattr(pb_utils.TritonError, message.error.code.triton_name)
            return pb_utils.InferenceResponse([], pb_utils.TritonError(str(message.error), code))


def _tensors(
    stage: Stage, step: int, total_steps: int, progress: float, **texts: str | bytes
) -> "pb_utils.InferenceResponse":
    """Make a response of the tensors that all have, and of the texts that are not empty."""
    numbers = [
        pb_utils.Tensor("STEP", np.array([step], np.int32)),
        pb_utils.Tensor("TOTAL_STEPS", np.array([total_steps], np.int32)),
        pb_utils.Tensor("PROGRESS", np.array([progress], np.float32)),
    ]
    strings = {"STAGE": stage.value, **texts}
    return pb_utils.InferenceResponse(
        numbers
        + [pb_utils.Tensor(name, text_array(text)) for name, text in strings.items() if text]
    )
