"""Owns the table of smart_mask's tensors and the conversion between them and the domain."""

from __future__ import annotations

import itertools
import json
import struct
from typing import TYPE_CHECKING, Any

from tritonclient.grpc import service_pb2

from frontend.domain.masks import MaskResult
from frontend.domain.models import MaskModelState
from frontend.errors import IMAGE_REFUSED, BackendError
from frontend.triton.tensors import ModelTensors, TensorSpec, add_input, outputs

if TYPE_CHECKING:
    from frontend.domain.masks import MaskPrompts

IMAGE = TensorSpec("IMAGE", "BYTES")
IMAGE_ID = TensorSpec("IMAGE_ID", "BYTES")
PROMPT_INPUTS = (
    TensorSpec("POINTS", "FP32", (-1, 2)),
    TensorSpec("POINT_LABELS", "INT32", (-1,)),
    TensorSpec("BBOX", "FP32", (4,)),
    TensorSpec("MASK", "BYTES"),
    TensorSpec("AUTO_DETECT", "BOOL"),
    TensorSpec("BORDER_ADJUSTMENT", "INT32"),
    TensorSpec("USE_BLUR", "BOOL"),
)
CANCEL = TensorSpec("CANCEL", "BYTES")
SMART_MASK = ModelTensors(
    model="smart_mask",
    inputs=(IMAGE, IMAGE_ID, *PROMPT_INPUTS, CANCEL),
    outputs=(
        TensorSpec("MASK_IMAGE", "BYTES"),
        TensorSpec("IMAGE_ID", "BYTES"),
        TensorSpec("SCORE", "FP32"),
        TensorSpec("CACHED", "BOOL"),
        TensorSpec("POINTS_MISSED", "INT32", (-1,)),
        TensorSpec("INFO", "BYTES"),
    ),
    decoupled=False,
)


def mask_request(call_id: str, prompts: MaskPrompts, image: bytes | str) -> Any:
    """Build the ModelInferRequest of one mask, without the prompts that are None or empty.

    Args:
        call_id: names the call for `cancel_request`.
        prompts: what to find.
        image: the picture, an encoded file or its image_id.
    """
    request = service_pb2.ModelInferRequest(model_name=SMART_MASK.model, id=call_id)
    add_input(request, IMAGE_ID if isinstance(image, str) else IMAGE, (image,))
    for spec in PROMPT_INPUTS:
        value = getattr(prompts, spec.name.lower())
        if value is None or value == ():
            continue
        if len(spec.shape) == 2:
            value = tuple(itertools.chain.from_iterable(value))
        add_input(request, spec, value if isinstance(value, tuple) else (value,))
    return request


def cancel_request(call_id: str) -> Any:
    """Build the ModelInferRequest that cancels the call `call_id`; "" names none and is a ping."""
    request = service_pb2.ModelInferRequest(model_name=SMART_MASK.model)
    add_input(request, CANCEL, (call_id,))
    return request


def mask_result(response: Any) -> MaskResult:
    """Read the ModelInferResponse of a mask.

    Raises:
        BackendError: the response is not readable.
    """
    try:
        read = outputs(response)
        info = json.loads(read["INFO"][0])
        return MaskResult(
            mask=read["MASK_IMAGE"][0],
            image_id=read["IMAGE_ID"][0].decode(),
            # To the digits that FP32 holds.
            score=round(read["SCORE"][0], 6),
            cached=read["CACHED"][0],
            points_missed=tuple(read["POINTS_MISSED"]),
            timings={str(stage): float(seconds) for stage, seconds in info["timings"].items()},
        )
    except (AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
        raise BackendError("Triton's answer to a mask request is not readable") from error


def model_state(response: Any) -> MaskModelState:
    """Read the ModelInferResponse to a CANCEL.

    Raises:
        BackendError: the response is not readable.
    """
    try:
        info = json.loads(outputs(response)["INFO"][0])
        return MaskModelState(
            cancelled=bool(info["cancelled"]),
            bundle=str(info["model"]),
            waiting=int(info["waiting"]),
            running=int(info["running"]),
            max_queue_size=int(info["max_queue_size"]),
            network_answers=bool(info["network_answers"]),
            cache={str(name): int(count) for name, count in info["cache"].items()},
        )
    except (AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
        raise BackendError("Triton's answer to a ping is not readable") from error


def in_field_names(text: str) -> str:
    """Return the model's error text with fields for tensors, because REST knows only fields.

    Each tensor is the field of the same name. For a refused picture the contract has a sentence of
    its own.
    """
    if text.startswith("IMAGE: "):
        return f"{IMAGE_REFUSED}: {text.removeprefix('IMAGE: ')}"
    return SMART_MASK.with_field_names(text, {})
