"""Returns its input; a text like `sleep 5 FILE` makes it write FILE and wait so many seconds.

`hold 5 FILE` makes it wait in native code that keeps Python's lock, as an endless loop there would.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import triton_python_backend_utils as pb_utils

from model_kit import heartbeat


class TritonPythonModel:
    """One request at a time, each answered before `execute` returns."""

    def initialize(self, args: dict[str, str]) -> None:
        """Show that the process lives."""
        heartbeat.start(pb_utils.Logger.log_error)

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        """Answer each request with its own TEXT."""
        responses = []
        for request in requests:
            (text,) = (tensor.as_numpy() for tensor in request.inputs())
            if text[0].startswith((b"sleep ", b"hold ")):
                how, seconds, begun = text[0].decode().split()
                Path(begun).touch()
                if how == "hold":
                    ctypes.PyDLL(None).sleep(int(seconds))
                else:
                    time.sleep(float(seconds))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("TEXT", text)]))
        return responses
