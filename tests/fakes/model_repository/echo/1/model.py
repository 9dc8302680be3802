"""Returns its input; a text like `sleep 5 FILE` makes it write FILE and wait so many seconds."""

from __future__ import annotations

import time
from pathlib import Path

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
            if text[0].startswith(b"sleep "):
                _, seconds, begun = text[0].decode().split()
                Path(begun).touch()
                time.sleep(float(seconds))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("TEXT", text)]))
        return responses
