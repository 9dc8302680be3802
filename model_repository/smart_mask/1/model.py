"""Triton's smart_mask: requests in, responses out; the modules beside it do the work."""

import json
import os
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from smart_mask.errors import Code, MaskError, error_of, invalid
from smart_mask.jobs import Job, MaskJobs
from smart_mask.letterbox import Floats
from smart_mask.network import Network
from smart_mask.request import MAX_ELEMENTS, Tensors, read_request
from smart_mask.segmenter import Laps, Mask, Segmenter
from smart_mask.settings import MaskSettings

# The network takes less than a second. After minutes without an answer none will come: a GPU that
# fell off may keep its driver waiting for ever, and one that failed fails until Triton starts anew.
STUCK_S = 300.0


class TritonPythonModel:
    """Takes requests and returns; threads answer them, one response each."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the parameters and the bundle's manifest once; a bad one fails the load."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._settings = MaskSettings.from_parameters(
            {key: value["string_value"] for key, value in parameters.items()},
            Path(args["model_repository"]),
        )
        log_error = pb_utils.Logger.log_error
        self._network = Network(_infer, self._settings.image_size, log_error)
        self._segmenter = Segmenter(self._settings, self._network)
        self._jobs: MaskJobs[pb_utils.InferenceResponseSender] = MaskJobs(
            self._segmenter.segment,
            _answer,
            lambda sender: sender.is_cancelled(),
            log_error,
            workers=self._settings.workers,
            max_queue_size=self._settings.max_queue_size,
        )

    def execute(self, requests: list["pb_utils.InferenceRequest"]) -> None:
        """Hands requests to the threads; carries out cancels and answers them."""
        for request in requests:
            self._take(request)

    def finalize(self) -> None:
        """Answers every request."""
        self._jobs.stop()

    def _take(self, request: "pb_utils.InferenceRequest") -> None:
        sender = request.get_response_sender()
        try:
            tensors = _inputs(request)
            if "CANCEL" not in tensors:
                checked = read_request(tensors, self._settings.max_request_bytes)
                self._jobs.submit(Job(request.request_id(), checked, sender))
                return
            response = pb_utils.InferenceResponse([_text("INFO", self._cancel(tensors))])
        except Exception as error:
            response = _failed(error_of(error, pb_utils.Logger.log_error))
        sender.send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _cancel(self, tensors: Tensors) -> str:
        if len(tensors) > 1:
            raise invalid("CANCEL", "must be the only input")
        if self._network.silent_seconds() > STUCK_S:
            pb_utils.Logger.log_error("smart_mask: fastsam does not answer, ending the process")
            os._exit(1)  # whoever watches the process starts Triton anew, fastsam with it
        cancelled = self._jobs.cancel_id(tensors["CANCEL"][0].decode(errors="replace"))
        waiting, running = self._jobs.counts()
        return json.dumps(
            {
                "model": self._settings.network,
                "cancelled": cancelled,
                "waiting": waiting,
                "running": running,
                "max_queue_size": self._settings.max_queue_size,
                "network_answers": self._network.answers(),
                "cache": self._segmenter.cache.counts(),
            }
        )


def _inputs(request: "pb_utils.InferenceRequest") -> Tensors:
    """The inputs as lists.

    Raises:
        MaskError: one has too many elements; making lists of millions would stop all others.
    """
    arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
    for name, array in arrays.items():
        if array.size > MAX_ELEMENTS:
            raise invalid(name, f"{array.size} elements, at most {MAX_ELEMENTS}")
    return {name: array.tolist() for name, array in arrays.items()}


def _infer(image: Floats) -> tuple[Floats, Floats]:
    """Has fastsam run the network on one picture.

    Raises:
        RuntimeError: it did not.
    """
    response = pb_utils.InferenceRequest(
        model_name="fastsam",
        requested_output_names=["output0", "output1"],
        inputs=[pb_utils.Tensor("images", image)],
        # `as_numpy` refuses tensors on the GPU, where Triton leaves a GPU model's outputs.
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    ).exec()
    if response.has_error():
        raise RuntimeError(response.error().message())
    # The arrays lie in shared memory that goes with the response.
    outputs = {tensor.name(): tensor.as_numpy()[0].copy() for tensor in response.output_tensors()}
    return outputs["output0"], outputs["output1"]


def _answer(job: "Job[pb_utils.InferenceResponseSender]", result: Mask | MaskError) -> None:
    response = _failed(result) if isinstance(result, MaskError) else _found(job.laps, result)
    job.sender.send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _found(laps: Laps, mask: Mask) -> "pb_utils.InferenceResponse":
    info = {"timings": laps.seconds, "detections": mask.detections, "box": mask.box}
    return pb_utils.InferenceResponse(
        [
            _text("MASK_IMAGE", mask.png),
            _text("IMAGE_ID", mask.image_id),
            pb_utils.Tensor("SCORE", np.array([mask.score], np.float32)),
            pb_utils.Tensor("CACHED", np.array([mask.cached])),
            _text("INFO", json.dumps(info)),
        ]
    )


def _failed(error: MaskError) -> "pb_utils.InferenceResponse":
    code = {
        Code.INVALID_ARGUMENT: pb_utils.TritonError.INVALID_ARG,
        Code.NOT_FOUND: pb_utils.TritonError.NOT_FOUND,
        Code.UNAVAILABLE: pb_utils.TritonError.UNAVAILABLE,
        Code.CANCELLED: pb_utils.TritonError.CANCELLED,
    }.get(error.code, pb_utils.TritonError.INTERNAL)
    return pb_utils.InferenceResponse([], pb_utils.TritonError(str(error), code))


def _text(name: str, text: str | bytes) -> "pb_utils.Tensor":
    data = text.encode() if isinstance(text, str) else text
    return pb_utils.Tensor(name, np.array([data], dtype=np.object_))
