"""Returns its input, after as many seconds as a text like `sleep 5` says."""

from __future__ import annotations

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One request at a time, each answered before `execute` returns."""

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        """Answer each request with its own TEXT."""
        responses = []
        for request in requests:
            (text,) = (tensor.as_numpy() for tensor in request.inputs())
            command, _, seconds = text[0].decode().partition(" ")
            if command == "sleep":
                time.sleep(float(seconds))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("TEXT", text)]))
        return responses
