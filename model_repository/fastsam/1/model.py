"""Triton's fastsam on a CPU: tensors in, tensors out; fastsam_network does the work."""

import json
import traceback
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from fastsam.network import Floats, Network


class TritonPythonModel:
    """Answers each request alone, whatever was batched with it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compiles the bundle's network; a bad parameter or bundle fails the load."""
        parameters = json.loads(args["model_config"])["parameters"]
        bundle = Path(args["model_repository"], parameters["BUNDLE"]["string_value"]).resolve()
        self._network = Network(bundle, parameters["PRECISION"]["string_value"])

    def execute(
        self, requests: list["pb_utils.InferenceRequest"]
    ) -> list["pb_utils.InferenceResponse"]:
        """Answers every request, in order, with its tensors or with one coded error."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: "pb_utils.InferenceRequest") -> "pb_utils.InferenceResponse":
        try:
            images: Floats = request.inputs()[0].as_numpy()
            return pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(name, np.ascontiguousarray(output))
                    for name, output in zip(
                        ("output0", "output1"), self._network.run(images), strict=True
                    )
                ]
            )
        except ValueError as error:
            text, code = f"[INVALID_ARGUMENT] {error}", pb_utils.TritonError.INVALID_ARG
        except Exception:
            pb_utils.Logger.log_error(traceback.format_exc())
            text, code = "[INTERNAL] the network failed", pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse([], pb_utils.TritonError(text, code))
