"""Owns what a table of a model's tensors is, and their bytes on the wire.

Each model's `config.pbtxt` is the source of names, types and shapes; `mismatches` compares a
table with it.
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
    """One tensor of a model.

    Attributes:
        name: as in config.pbtxt.
        datatype: as on the wire (BYTES, INT32, INT64, FP32, BOOL).
        shape: as in config.pbtxt; the first number may be -1, which means any.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class ModelTensors:
    """All tensors of one model.

    Attributes:
        model: its name.
        inputs: every one optional.
        outputs: of all its responses.
        decoupled: whether a request has any number of responses, instead of one.
    """

    model: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    decoupled: bool

    def with_field_names(self, text: str, names: Mapping[str, str]) -> str:
        """Word a text about inputs for users of REST, who know fields and not tensors.

        Args:
            text: names inputs of this model.
            names: input -> its field, where that is not the input's name in lower case.
        """
        inputs = "|".join(spec.name for spec in self.inputs)
        return re.sub(rf"\b({inputs})\b", lambda name: names.get(name[1], name[1].lower()), text)


def mismatches(table: ModelTensors, config: Any) -> list[str]:
    """Compare a table with the model's ModelConfig; an empty list means that they agree.

    A tensor that only the config has is no mismatch as long as it is optional.
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
        request: where to.
        spec: which one.
        values: its elements in row-major order; text for BYTES is encoded as UTF-8.
    """
    *rows, columns = spec.shape
    shape = [len(values) // columns, columns] if rows else [len(values)]
    request.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
    request.raw_input_contents.append(_pack(spec.datatype, values))


def outputs(response: Any) -> dict[str, list[Any]]:
    """Return the elements of each tensor of a ModelInferResponse, by the tensor's name.

    Raises:
        ValueError, struct.error: its bytes are not what it says they are.
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
