"""Owns Triton's side of fastsam on a CPU: tensors in, tensors out; fastsam/ does the work."""

import numpy as np
import triton_python_backend_utils as pb_utils

try:
    from model_kit.errors import error_of
except ModuleNotFoundError:
    raise ImportError(
        "the Python that runs Triton's models lacks the package model_kit; "
        "in ArtMancer's folder run: pip install --no-deps ."
    ) from None

from fastsam.network import Floats, Network
from model_kit import heartbeat, internal
from model_kit.parameters import Parameters


class TritonPythonModel:
    """Answers each request alone, even if Triton batched it with others."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the bundle's network; a bad parameter or bundle fails the load."""
        self._network = Network.from_parameters(Parameters.of_model(args))
        heartbeat.start(pb_utils.Logger.log_error)

    def execute(
        self, requests: list["pb_utils.InferenceRequest"]
    ) -> list["pb_utils.InferenceResponse"]:
        """Answer every request, in order, with its tensors or with one coded error."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: "pb_utils.InferenceRequest") -> "pb_utils.InferenceResponse":
        try:
            internal.refuse_clients(request)
            images: Floats = request.inputs()[0].as_numpy()
            return pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(name, np.ascontiguousarray(output))
                    for name, output in zip(
                        ("output0", "output1"), self._network.run(images), strict=True
                    )
                ]
            )
        except Exception as exception:
            error = error_of(exception, pb_utils.Logger.log_error, "the network failed")
            code = getattr(pb_utils.TritonError, error.code.triton_name)
            return pb_utils.InferenceResponse([], pb_utils.TritonError(str(error), code))
