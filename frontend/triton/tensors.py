"""Owns tables of a model's tensors, and the tensors' bytes on the wire.

Each model's `config.pbtxt` owns names, types and shapes; `mismatches` compares a table with it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tritonclient.grpc import model_config_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_CONFIG_TYPES = {
    "BYTES": "TYPE_STRING",
    "INT32": "TYPE_INT32",
    "INT64": "TYPE_INT64",
    "FP32": "TYPE_FP32",
    "BOOL": "TYPE_BOOL",
}
_STRUCT_CODES = {"INT32": "i", "INT64": "q", "FP32": "f", "BOOL": "?"}


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model."""

    name: str
    """Its name in config.pbtxt."""
    datatype: str
    """Its type on the wire: BYTES, INT32, INT64, FP32 or BOOL."""
    shape: tuple[int, ...] = (1,)
    """Its shape in config.pbtxt; the first number may be -1, which means any."""


@dataclass(frozen=True)
class ModelTensors:
    """All tensors of one model."""

    model: str
    """The model's name."""
    inputs: tuple[TensorSpec, ...]
    """All inputs; each is optional."""
    outputs: tuple[TensorSpec, ...]
    """The outputs of all its responses."""
    decoupled: bool
    """Whether a request has any number of responses instead of one."""

    def with_field_names(self, text: str, names: Mapping[str, str]) -> str:
        """Return a text in which each input of this model is replaced by its REST field.

        Args:
            text: any text.
            names: input -> field; an input that is missing here has its name in lower case.
        """
        inputs = "|".join(spec.name for spec in self.inputs)
        return re.sub(rf"\b({inputs})\b", lambda name: names.get(name[1], name[1].lower()), text)


def mismatches(table: ModelTensors, config: Any) -> list[str]:
    """Compare a table with the model's ModelConfig; return one line for each difference.

    An optional tensor that only the config has is no difference.
    """
    found = []
    if config.model_transaction_policy.decoupled != table.decoupled:
        found.append(f"the model is {'not ' if table.decoupled else ''}decoupled")
    for kind, specs, configured in (
        ("input", table.inputs, config.input),
        ("output", table.outputs, config.output),
    ):
        tensors = {tensor.name: tensor for tensor in configured}
        for spec in specs:
            wanted = f"{kind} {spec.name} {_CONFIG_TYPES[spec.datatype]} {list(spec.shape)}"
            if (tensor := tensors.pop(spec.name, None)) is None:
                found.append(f"{wanted} is missing")
                continue
            datatype = model_config_pb2.DataType.Name(tensor.data_type)
            if datatype != _CONFIG_TYPES[spec.datatype] or tuple(tensor.dims) != spec.shape:
                found.append(f"{wanted} is {datatype} {list(tensor.dims)}")
            if kind == "input" and not tensor.optional:
                found.append(f"{wanted} is not optional")
        if kind == "input":
            found += [f"input {name} is required" for name, t in tensors.items() if not t.optional]
    return found


def add_input(request: Any, spec: TensorSpec, values: Sequence[Any]) -> None:
    """Add a tensor to a ModelInferRequest.

    Args:
        request: the ModelInferRequest.
        spec: the tensor.
        values: its elements in row-major order; text for BYTES is encoded as UTF-8.
    """
    *rows, columns = spec.shape
    shape = [len(values) // columns, columns] if rows else [len(values)]
    request.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
    request.raw_input_contents.append(_pack(spec.datatype, values))


def outputs(response: Any) -> dict[str, list[Any]]:
    """Return the elements of each tensor of a ModelInferResponse, by the tensor's name.

    Raises:
        ValueError, struct.error: the bytes do not fit the tensor's type.
    """
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {tensor.name: list(_unpack(tensor.datatype, raw)) for tensor, raw in pairs}


def _pack(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        encoded = [value.encode() if isinstance(value, str) else value for value in values]
        return b"".join(part for each in encoded for part in (struct.pack("<I", len(each)), each))
    return struct.pack(f"<{len(values)}{_STRUCT_CODES[datatype]}", *values)


def _unpack(datatype: str, raw: bytes) -> Iterator[Any]:
    if datatype != "BYTES":
        yield from (value for (value,) in struct.iter_unpack(f"<{_STRUCT_CODES[datatype]}", raw))
        return
    start = 0
    while start < len(raw):
        (length,) = struct.unpack_from("<I", raw, start)
        start += 4 + length
        if start > len(raw):
            raise ValueError("a BYTES element is cut short")
        yield raw[start - length : start]
