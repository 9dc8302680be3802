"""Owns Triton's side of smart_mask: requests in, responses out; smart_mask/ does the work."""

import json
import os

import numpy as np
import triton_python_backend_utils as pb_utils

try:
    from model_kit.errors import CodedError, invalid
except ModuleNotFoundError:
    raise ImportError(
        "the Python that runs Triton's models lacks the package model_kit; "
        "in ArtMancer's folder run: pip install --no-deps ."
    ) from None

from model_kit import deadlines, heartbeat, internal
from model_kit.deadlines import STUCK_S
from model_kit.laps import Laps
from model_kit.parameters import Parameters
from model_kit.tensors import Tensors, read_inputs, read_outputs, read_text, text_array
from smart_mask.errors import error_of
from smart_mask.jobs import MaskJob, MaskJobs
from smart_mask.letterbox import Floats
from smart_mask.network import FastsamClient
from smart_mask.request import MAX_ELEMENTS, read_mask_request
from smart_mask.segmenter import Mask, Segmenter
from smart_mask.settings import MaskSettings


class TritonPythonModel:
    """Takes requests and returns; threads answer them, one response each."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameters and the bundle's manifest; a bad one fails the load."""
        self._settings = MaskSettings.from_parameters(Parameters.of_model(args))
        log_error = pb_utils.Logger.log_error
        self._network = FastsamClient(_infer, self._settings.image_size, log_error)
        self._segmenter = Segmenter(self._settings, self._network)
        self._jobs: MaskJobs[pb_utils.InferenceResponseSender] = MaskJobs(
            self._segmenter.segment,
            _answer,
            lambda sender: sender.is_cancelled(),
            log_error,
            workers=self._settings.workers,
            max_queue_size=self._settings.max_queue_size,
        )
        self._beat = heartbeat.start(log_error, lambda: any(self._jobs.counts()))

    def execute(self, requests: list["pb_utils.InferenceRequest"]) -> None:
        """Hand requests to the threads; carry out cancels and answer them."""
        for request in requests:
            self._take(request)

    def finalize(self) -> None:
        """Answer every request."""
        self._jobs.stop()
        self._beat()

    def _take(self, request: "pb_utils.InferenceRequest") -> None:
        sender = request.get_response_sender()
        try:
            tensors = read_inputs(request, MAX_ELEMENTS)
            if "CANCEL" not in tensors:
                checked = read_mask_request(tensors, self._settings.max_request_bytes)
                self._jobs.submit(MaskJob(request.request_id(), checked, sender))
                return
            response = pb_utils.InferenceResponse(
                [pb_utils.Tensor("INFO", text_array(self._cancel(tensors)))]
            )
        except Exception as error:
            response = _failed(error_of(error, pb_utils.Logger.log_error))
        sender.send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _cancel(self, tensors: Tensors) -> str:
        if len(tensors) > 1:
            raise invalid("CANCEL", "must be the only input")
        request_id = read_text(tensors, "CANCEL")
        self._end_if_stuck()
        if not request_id:
            deadlines.refuse_if_late("a mask request", self._jobs.longest_seconds())
        cancelled = self._jobs.cancel_id(request_id)
        waiting, running = self._jobs.counts()
        return json.dumps(
            {
                "model": self._settings.network,
                "cancelled": cancelled,
                "waiting": waiting,
                "running": running,
                "max_queue_size": self._settings.max_queue_size,
                "network_answers": self._network.answers(),
                "cache": self._segmenter.cache_counts(),
            }
        )

    def _end_if_stuck(self) -> None:
        """End the process where a thread will not come back; its watcher restarts all of Triton.

        A driver may wait for ever for a GPU that fell off the bus. A GPU that failed fails until
        fastsam's process starts anew. A network that has never answered would not by that.
        """
        stuck = "fastsam" if self._network.silent_seconds() > STUCK_S else None
        if self._jobs.longest_seconds() > STUCK_S and not self._network.is_called():
            stuck = "one of its own threads"
        if stuck is not None:
            pb_utils.Logger.log_error(f"smart_mask: {stuck} does not answer, ending the process")
            os._exit(1)


def _infer(image: Floats) -> tuple[Floats, Floats]:
    """Call fastsam to run the network on one picture.

    Raises:
        RuntimeError: it answered with an error.
    """
    response = pb_utils.InferenceRequest(
        model_name="fastsam",
        requested_output_names=["output0", "output1"],
        inputs=[pb_utils.Tensor("images", image)],
        # `as_numpy` refuses tensors on the GPU, where Triton leaves a GPU model's outputs.
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        parameters=internal.parameters(),
    ).exec()
    if response.has_error():
        raise RuntimeError(response.error().message())
    outputs = read_outputs(response)
    return outputs["output0"][0], outputs["output1"][0]


def _answer(job: "MaskJob[pb_utils.InferenceResponseSender]", result: Mask | CodedError) -> None:
    response = _failed(result) if isinstance(result, CodedError) else _found(job.laps, result)
    job.sender.send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _found(laps: Laps, mask: Mask) -> "pb_utils.InferenceResponse":
    info = {"timings": laps.seconds, "detections": mask.detections, "box": mask.box}
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("MASK_IMAGE", text_array(mask.png)),
            pb_utils.Tensor("IMAGE_ID", text_array(mask.image_id)),
            pb_utils.Tensor("SCORE", np.array([mask.score], np.float32)),
            pb_utils.Tensor("CACHED", np.array([mask.cached])),
            pb_utils.Tensor("POINTS_MISSED", np.array(mask.points_missed, np.int32)),
            pb_utils.Tensor("INFO", text_array(json.dumps(info))),
        ]
    )


def _failed(error: CodedError) -> "pb_utils.InferenceResponse":
    code = getattr(pb_utils.TritonError, error.code.triton_name)
    return pb_utils.InferenceResponse([], pb_utils.TritonError(str(error), code))
