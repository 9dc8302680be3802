"""Owns reading what goes to Triton, independently of the code under test."""

from __future__ import annotations

import functools
import math
import struct
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

REPOSITORY = Path(__file__).parents[2] / "model_repository"
_CODES = {"INT32": "i", "INT64": "q", "FP32": "f", "BOOL": "?"}


def model_config(path: str = "image_edit/config.pbtxt") -> Any:
    """Return a config of the model repository as a ModelConfig of the caller's own."""
    config = model_config_pb2.ModelConfig()
    config.CopyFrom(_parsed(path))
    return config


@functools.cache  # parsing takes 13 ms, and each test with a stand-in for Triton wants two
def _parsed(path: str) -> Any:
    return text_format.Parse((REPOSITORY / path).read_text(), model_config_pb2.ModelConfig())


def decode(tensors: Any, contents: Any) -> dict[str, list[Any]]:
    """Return the elements of each tensor, by its name."""
    decoded: dict[str, list[Any]] = {}
    for tensor, raw in zip(tensors, contents, strict=True):
        count = math.prod(tensor.shape)
        if tensor.datatype != "BYTES":
            decoded[tensor.name] = list(struct.unpack(f"<{count}{_CODES[tensor.datatype]}", raw))
            continue
        elements, rest = [], raw
        while rest:
            (length,) = struct.unpack("<I", rest[:4])
            elements.append(rest[4 : 4 + length])
            rest = rest[4 + length :]
        assert len(elements) == count
        decoded[tensor.name] = elements
    return decoded
