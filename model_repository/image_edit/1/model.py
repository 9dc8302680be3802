"""Triton's image_edit: requests in, responses out; the modules beside it do the work."""

import json
import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import triton_python_backend_utils as pb_utils

from image_edit.conditions import Conditions
from image_edit.engine.cpu import tune_for_cpu
from image_edit.errors import Code, error_of, error_of_conditions, invalid
from image_edit.jobs import EditJobs, Job
from image_edit.loading import loading
from image_edit.messages import Answered, Failed, Message, Progressed, Stage, Succeeded
from image_edit.request import MAX_ELEMENTS, EditRequest, Tensors, read_request, read_text
from image_edit.run import EditRunner
from image_edit.settings import EditSettings
from image_edit.wire import EditWire

if TYPE_CHECKING:
    from image_edit.engine.bundle import Bundle

# A unit of the engine's work takes seconds on a GPU. One that takes minutes will not end: a
# driver may wait for ever for a GPU that fell off, and says nothing.
STUCK_S = 300.0
CONDITION_OUTPUTS = ["CONDITIONS", "INPUT", "COMPOSITE_MASK", "PROMPT", "TASK_TYPE", "DEBUG_INFO"]


class TritonPythonModel:
    """Takes requests and returns; three threads see to the jobs and their responses."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the bundle, warms it up and starts; whatever is raised fails the load."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._settings = EditSettings.from_parameters(
            {key: value["string_value"] for key, value in parameters.items()},
            Path(args["model_repository"]),
        )
        self._on_gpu = args["model_instance_kind"] == "GPU"
        device = f"cuda:{args['model_instance_device_id']}" if self._on_gpu else "cpu"
        if not self._on_gpu:
            tune_for_cpu()
        log_error = pb_utils.Logger.log_error
        with loading(pb_utils.Logger.log_info) as on_stage:
            # Load in a thread that ends. OpenMP keeps a thread pool for every thread that has
            # computed. Two pools are more threads than cores, and then libgomp never spins,
            # whatever GOMP_SPINCOUNT says.
            with ThreadPoolExecutor(1) as thread:
                bundle, runner = thread.submit(_load, self._settings, device, on_stage).result()
            self._about = {"model": bundle.name, "adapters": list(bundle.adapters)}
            self._wire: EditWire[Hashable, pb_utils.InferenceResponse] = EditWire(
                _response,
                pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
                on_left=self._client_left,
                log_error=log_error,
            )
            self._jobs = EditJobs(
                _conditions,
                runner.run,
                self._wire.post,
                log_error,
                self._leave,
                self._settings.max_queue_size,
                # In the engine's thread, because cuDNN's plans and torch's configuration belong
                # to the thread that made them.
                warm_up=lambda: runner.warm_up(self._settings.warm_up_sizes, on_stage),
                give_back_memory=runner.give_back_memory,
            )

    def execute(self, requests: list["pb_utils.InferenceRequest"]) -> None:
        """Enqueues edits and carries out cancels; the wire answers, now or later."""
        for request in requests:
            self._take(request)

    def finalize(self) -> None:
        """Ends every job with an error."""
        self._jobs.stop()
        self._wire.stop()

    def _leave(self) -> None:
        """Ends every job and then this process, for whoever watches it to start anew."""

        def leave() -> None:
            self.finalize()
            os._exit(1)

        # Not in the engine's thread, which `finalize` waits for.
        threading.Thread(target=leave, name="leaving").start()

    def _take(self, request: "pb_utils.InferenceRequest") -> None:
        sender = request.get_response_sender()
        try:
            tensors = _inputs(request)
            if "CANCEL" not in tensors:
                job = Job(request.request_id(), self._read(tensors))
                self._wire.open(job, sender)
                self._jobs.submit(job)
                return
            message: Message = self._cancel(tensors)
        except Exception as error:
            message = Failed(error_of(error, pb_utils.Logger.log_error))
        self._wire.open(sender, sender)
        self._wire.post(sender, message)

    def _read(self, tensors: Tensors) -> EditRequest:
        return read_request(
            tensors,
            static_schedule=self._settings.static_schedule,
            max_bytes=self._settings.max_request_bytes,
        )

    def _cancel(self, tensors: Tensors) -> Answered:
        if len(tensors) > 1:
            raise invalid("CANCEL", "must be the only input")
        if self._on_gpu and self._jobs.unit_seconds() > STUCK_S:
            pb_utils.Logger.log_error("image_edit: the GPU does not answer, ending the process")
            os._exit(1)  # its thread cannot be ended, and whoever watches the process starts anew
        cancelled = self._jobs.cancel_id(read_text(tensors, "CANCEL"))
        waiting, running = self._jobs.counts()
        return Answered(
            json.dumps(
                {
                    **self._about,
                    "cancelled": cancelled,
                    "waiting": waiting,
                    "running": running,
                    "max_queue_size": self._settings.max_queue_size,
                }
            )
        )

    def _client_left(self, stream: Hashable) -> None:
        if isinstance(stream, Job):
            self._jobs.cancel(stream)


def _inputs(request: "pb_utils.InferenceRequest") -> Tensors:
    """The inputs as lists.

    Raises:
        EditError: INVALID_ARGUMENT: one has too many elements; making lists of millions would
            stop all other clients.
    """
    arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
    for name, array in arrays.items():
        if array.size > MAX_ELEMENTS:
            raise invalid(name, f"{array.size} elements, at most {MAX_ELEMENTS}")
    return {name: array.tolist() for name, array in arrays.items()}


def _load(
    settings: EditSettings, device: str, on_stage: Callable[[str], None]
) -> tuple["Bundle", EditRunner]:
    """Loads the bundle and tells how far it is."""
    on_stage("importing the packages")
    # Not before, because they load torch, which reads what was tuned.
    from image_edit.engine.bundle import load_bundle
    from image_edit.engine.engine import EditEngine

    bundle = load_bundle(settings.bundle, settings.tuning, device, on_stage)
    engine = EditEngine(bundle, settings.condition_area, settings.scheduler_shift)
    return bundle, EditRunner(engine, bundle.name)


def _conditions(request: EditRequest) -> Conditions:
    """Has edit_conditions build the conditions of a request.

    Raises:
        EditError: whatever it answered, code included.
    """
    response = pb_utils.InferenceRequest(
        model_name="edit_conditions",
        requested_output_names=CONDITION_OUTPUTS,
        inputs=[
            pb_utils.Tensor(name, np.array(elements, dtype=np.object_))
            for name, elements in request.condition_inputs.items()
        ],
        # `as_numpy` refuses tensors on the GPU, where Triton leaves a GPU model's outputs.
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    ).exec()
    if response.has_error():
        raise error_of_conditions(response.error().message())
    # The arrays lie in shared memory that goes with the response.
    outputs = {tensor.name(): tensor.as_numpy().copy() for tensor in response.output_tensors()}
    return Conditions(
        images=outputs["CONDITIONS"],
        source=outputs["INPUT"],
        composite_mask=outputs.get("COMPOSITE_MASK"),
        prompt=outputs["PROMPT"][0].decode(),
        task_type=outputs["TASK_TYPE"][0].decode(),
        debug_info=json.loads(outputs["DEBUG_INFO"][0]),
    )


def _response(message: Message) -> "pb_utils.InferenceResponse":
    match message:
        case Progressed():
            return _tensors(
                message.stage,
                message.step,
                message.total_steps,
                message.progress,
                PREVIEW_IMAGE=message.preview,
            )
        case Succeeded():
            total = message.total_steps
            return _tensors(Stage.DONE, total, total, 1.0, IMAGE=message.image, INFO=message.info)
        case Answered():
            return _tensors(Stage.DONE, 0, 0, 1.0, INFO=message.info)
        case Failed():
            code = {
                Code.INVALID_ARGUMENT: pb_utils.TritonError.INVALID_ARG,
                Code.UNIMPLEMENTED: pb_utils.TritonError.UNSUPPORTED,
                Code.UNAVAILABLE: pb_utils.TritonError.UNAVAILABLE,
                Code.CANCELLED: pb_utils.TritonError.CANCELLED,
            }.get(message.error.code, pb_utils.TritonError.INTERNAL)
            return pb_utils.InferenceResponse([], pb_utils.TritonError(str(message.error), code))


def _tensors(
    stage: Stage, step: int, total_steps: int, progress: float, **texts: str | bytes
) -> "pb_utils.InferenceResponse":
    """A response of the tensors that all have, and of those texts that are not empty."""
    numbers = [
        pb_utils.Tensor("STEP", np.array([step], np.int32)),
        pb_utils.Tensor("TOTAL_STEPS", np.array([total_steps], np.int32)),
        pb_utils.Tensor("PROGRESS", np.array([progress], np.float32)),
    ]
    strings = {"STAGE": stage.value, **texts}
    return pb_utils.InferenceResponse(
        numbers
        + [
            pb_utils.Tensor(name, np.array([text], dtype=np.object_))
            for name, text in strings.items()
            if text
        ]
    )
