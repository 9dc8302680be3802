"""Triton's smart_mask: requests in, responses out; the modules beside it do the work."""

import json
import traceback
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from mask_errors import Code, MaskError, error_of, invalid
from mask_jobs import Job, MaskJobs
from mask_letterbox import Floats
from mask_request import Tensors, read_request
from mask_segmenter import Mask, Segmenter
from mask_settings import MaskSettings


class TritonPythonModel:
    """Takes requests and returns; threads answer them, one response each."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the parameters and the bundle's manifest once; a bad one fails the load."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._settings = MaskSettings.from_parameters(
            {key: value["string_value"] for key, value in parameters.items()},
            Path(args["model_repository"]),
        )
        self._segmenter = Segmenter(self._settings, _infer)
        self._jobs: MaskJobs[pb_utils.InferenceResponseSender] = MaskJobs(
            self._segmenter.segment,
            _answer,
            lambda sender: sender.is_cancelled(),
            pb_utils.Logger.log_error,
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
            tensors: Tensors = {
                tensor.name(): tensor.as_numpy().tolist() for tensor in request.inputs()
            }
            if "CANCEL" not in tensors:
                checked = read_request(tensors, self._settings.max_request_bytes)
                self._jobs.submit(Job(request.request_id(), checked, sender))
                return
            response = pb_utils.InferenceResponse([_text("INFO", self._cancel(tensors))])
        except Exception as error:
            response = _failed(error_of(error, pb_utils.Logger.log_error))
        _send(sender, response)

    def _cancel(self, tensors: Tensors) -> str:
        if len(tensors) > 1:
            raise invalid("CANCEL", "must be the only input")
        cancelled = self._jobs.cancel_id(tensors["CANCEL"][0].decode(errors="replace"))
        waiting, running = self._jobs.counts()
        return json.dumps(
            {
                "model": self._settings.network,
                "cancelled": cancelled,
                "waiting": waiting,
                "running": running,
                "max_queue_size": self._settings.max_queue_size,
                "cache": self._segmenter.cache.counts(),
            }
        )


def _infer(image: Floats) -> tuple[Floats, Floats]:
    """Has fastsam run the network on one picture.

    Raises:
        RuntimeError: it could not.
    """
    response = pb_utils.InferenceRequest(
        model_name="fastsam",
        requested_output_names=["output0", "output1"],
        inputs=[pb_utils.Tensor("images", image)],
    ).exec()
    if response.has_error():
        raise RuntimeError(f"fastsam: {response.error().message()}")
    # The arrays lie in shared memory that goes with the response.
    outputs = {tensor.name(): tensor.as_numpy()[0].copy() for tensor in response.output_tensors()}
    return outputs["output0"], outputs["output1"]


def _answer(job: "Job[pb_utils.InferenceResponseSender]", result: Mask | MaskError) -> None:
    if isinstance(result, MaskError):
        _send(job.sender, _failed(result))
        return
    info = {"timings": job.laps.seconds, "detections": result.detections, "box": result.box}
    outputs = [
        _text("MASK_IMAGE", result.png),
        _text("IMAGE_ID", result.image_id),
        pb_utils.Tensor("SCORE", np.array([result.score], np.float32)),
        pb_utils.Tensor("CACHED", np.array([result.cached])),
        _text("INFO", json.dumps(info)),
    ]
    _send(job.sender, pb_utils.InferenceResponse(outputs))


def _send(
    sender: "pb_utils.InferenceResponseSender", response: "pb_utils.InferenceResponse"
) -> None:
    try:
        sender.send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    except Exception:
        # Too little shared memory, for one: the client must not wait for ever.
        pb_utils.Logger.log_error(traceback.format_exc())
        lost = _failed(MaskError(Code.INTERNAL, "the result could not be sent"))
        sender.send(lost, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


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
