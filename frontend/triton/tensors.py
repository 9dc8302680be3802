"""Owns the table of image_edit's tensors and the conversion between them and the domain.

The model's `config.pbtxt` is the source of names, types and shapes; `mismatches` compares this
table with it.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tritonclient.grpc import model_config_pb2, service_pb2

from frontend.domain import EditProgress, EditResult, ModelState, Stage
from frontend.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from frontend.domain import EditParams

MODEL = "image_edit"

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
    """One tensor of the model, always one-dimensional.

    Attributes:
        name: as in config.pbtxt.
        datatype: as on the wire (BYTES, INT32, INT64, FP32, BOOL).
        size: number of elements; -1 means any.
    """

    name: str
    datatype: str
    size: int = 1


EDIT_INPUTS = (
    TensorSpec("PROMPT", "BYTES"),
    TensorSpec("IMAGE", "BYTES"),
    TensorSpec("CONDITIONAL_IMAGES", "BYTES", -1),
    TensorSpec("REFERENCE_IMAGE", "BYTES"),
    TensorSpec("REFERENCE_MASK_R", "BYTES"),
    TensorSpec("NEGATIVE_PROMPT", "BYTES"),
    TensorSpec("TASK_TYPE", "BYTES"),
    TensorSpec("ANGLE", "BYTES"),
    TensorSpec("BACKGROUND_PRESET", "BYTES"),
    TensorSpec("INPUT_QUALITY", "BYTES"),
    TensorSpec("MASK_TOOL_TYPE", "BYTES"),
    TensorSpec("WIDTH", "INT32"),
    TensorSpec("HEIGHT", "INT32"),
    TensorSpec("NUM_INFERENCE_STEPS", "INT32"),
    TensorSpec("GUIDANCE_SCALE", "FP32"),
    TensorSpec("TRUE_CFG_SCALE", "FP32"),
    TensorSpec("SEED", "INT64"),
    TensorSpec("ENABLE_FLOWMATCH_SCHEDULER", "BOOL"),
    TensorSpec("PREVIEW", "BOOL"),
)
CANCEL = TensorSpec("CANCEL", "BYTES")
OUTPUTS = (
    TensorSpec("STAGE", "BYTES"),
    TensorSpec("STEP", "INT32"),
    TensorSpec("TOTAL_STEPS", "INT32"),
    TensorSpec("PROGRESS", "FP32"),
    TensorSpec("PREVIEW_IMAGE", "BYTES"),
    TensorSpec("IMAGE", "BYTES"),
    TensorSpec("INFO", "BYTES"),
)


def edit_request(task_id: str, params: EditParams) -> Any:
    """Build the ModelInferRequest of one edit; fields that are None or empty are not sent."""
    request = service_pb2.ModelInferRequest(model_name=MODEL, id=task_id)
    for spec in EDIT_INPUTS:
        value = getattr(params, spec.name.lower())
        if value is not None and value != ():
            _add_input(request, spec, value if isinstance(value, tuple) else (value,))
    return request


def cancel_request(task_id: str) -> Any:
    """Build the ModelInferRequest that stops the job `task_id`; "" names none and is a ping."""
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    _add_input(request, CANCEL, (task_id,))
    return request


def edit_update(response: Any) -> EditProgress | EditResult:
    """Read one ModelInferResponse of an edit.

    Raises:
        BackendError: the response is not what the model promises.
    """
    try:
        outputs = dict(_outputs(response))
        stage = Stage(outputs["STAGE"][0].decode())
        if stage is Stage.DONE:
            info = outputs["INFO"][0]
            # Not parsed: it may have tens of megabytes.
            if not (info.startswith(b'{"') and info.endswith(b"}")):
                raise ValueError("INFO is no JSON object")
            return EditResult(outputs["IMAGE"][0], info)
        return EditProgress(
            stage=stage,
            step=outputs["STEP"][0],
            total_steps=outputs["TOTAL_STEPS"][0],
            # What FP32 can tell.
            progress=round(outputs["PROGRESS"][0], 6),
            preview=next(iter(outputs.get("PREVIEW_IMAGE", ())), b""),
        )
    except (LookupError, ValueError, struct.error) as error:
        raise BackendError("Triton's answer to an edit is not readable") from error


def model_state(response: Any) -> ModelState:
    """Read the ModelInferResponse to a CANCEL.

    Raises:
        BackendError: the response is not what the model promises.
    """
    try:
        info = json.loads(dict(_outputs(response))["INFO"][0])
        return ModelState(
            cancelled=bool(info["cancelled"]),
            bundle=str(info["model"]),
            adapters=frozenset(info["adapters"]),
            waiting=int(info["waiting"]),
            running=int(info["running"]),
            max_queue_size=int(info["max_queue_size"]),
        )
    except (LookupError, TypeError, ValueError, struct.error) as error:
        raise BackendError("Triton's answer to a ping is not readable") from error


def mismatches(config: Any) -> list[str]:
    """Compare this table with the model's ModelConfig; an empty list means that they agree.

    A tensor that only the config has is no mismatch as long as it is optional.
    """
    found = [] if config.model_transaction_policy.decoupled else ["the model is not decoupled"]
    for kind, table, configured in (
        ("input", (*EDIT_INPUTS, CANCEL), config.input),
        ("output", OUTPUTS, config.output),
    ):
        tensors = {tensor.name: tensor for tensor in configured}
        for spec in table:
            wanted = f"{kind} {spec.name} {_CONFIG_TYPES[spec.datatype]} [{spec.size}]"
            if (tensor := tensors.pop(spec.name, None)) is None:
                found.append(f"{wanted} is missing")
                continue
            datatype = model_config_pb2.DataType.Name(tensor.data_type)
            if datatype != _CONFIG_TYPES[spec.datatype] or list(tensor.dims) != [spec.size]:
                found.append(f"{wanted} is {datatype} {list(tensor.dims)}")
            if kind == "input" and not tensor.optional:
                found.append(f"{wanted} is not optional")
        if kind == "input":
            found += [f"input {name} is required" for name, t in tensors.items() if not t.optional]
    return found


def _add_input(request: Any, spec: TensorSpec, values: Sequence[Any]) -> None:
    request.inputs.add(name=spec.name, datatype=spec.datatype, shape=[len(values)])
    request.raw_input_contents.append(_pack(spec.datatype, values))


def _pack(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        encoded = [value.encode() if isinstance(value, str) else value for value in values]
        return b"".join(part for each in encoded for part in (struct.pack("<I", len(each)), each))
    return struct.pack(f"<{len(values)}{_STRUCT_CODES[datatype]}", *values)


def _outputs(response: Any) -> Iterator[tuple[str, list[Any]]]:
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    for tensor, raw in pairs:
        yield tensor.name, list(_unpack(tensor.datatype, raw))


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
