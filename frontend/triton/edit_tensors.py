"""Owns the table of image_edit's tensors and the conversion between them and the domain."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from tritonclient.grpc import service_pb2

from frontend.domain.edits import EditPlan, EditProgress, EditResult, Stage
from frontend.domain.models import EditModelState
from frontend.errors import BackendError
from frontend.triton.tensors import ModelTensors, TensorSpec, add_input, outputs

if TYPE_CHECKING:
    from frontend.domain.edits import EditParams

CONDITIONAL_IMAGES = tuple(
    TensorSpec(f"CONDITIONAL_IMAGE_{number}", "BYTES") for number in range(4)
)
EDIT_INPUTS = (
    TensorSpec("PROMPT", "BYTES"),
    TensorSpec("IMAGE", "BYTES"),
    *CONDITIONAL_IMAGES,
    TensorSpec("REFERENCE_IMAGE", "BYTES"),
    TensorSpec("REFERENCE_MASK_R", "BYTES"),
    TensorSpec("NEGATIVE_PROMPT", "BYTES"),
    TensorSpec("TASK_TYPE", "BYTES"),
    TensorSpec("ANGLE", "BYTES"),
    TensorSpec("BACKGROUND_PRESET", "BYTES"),
    TensorSpec("INPUT_QUALITY", "BYTES"),
    TensorSpec("MASK_TOOL_TYPE", "BYTES"),
    TensorSpec("REGION", "BYTES"),
    TensorSpec("WIDTH", "INT32"),
    TensorSpec("HEIGHT", "INT32"),
    TensorSpec("NUM_INFERENCE_STEPS", "INT32"),
    TensorSpec("GUIDANCE_SCALE", "FP32"),
    TensorSpec("TRUE_CFG_SCALE", "FP32"),
    TensorSpec("SEED", "INT64"),
    TensorSpec("ENABLE_FLOWMATCH_SCHEDULER", "BOOL"),
    TensorSpec("PREVIEW", "BOOL"),
    TensorSpec("DEBUG", "BOOL"),
)
CANCEL = TensorSpec("CANCEL", "BYTES")
IMAGE_EDIT = ModelTensors(
    model="image_edit",
    inputs=(*EDIT_INPUTS, CANCEL),
    outputs=(
        TensorSpec("STAGE", "BYTES"),
        TensorSpec("STEP", "INT32"),
        TensorSpec("TOTAL_STEPS", "INT32"),
        TensorSpec("PROGRESS", "FP32"),
        TensorSpec("PREVIEW_IMAGE", "BYTES"),
        TensorSpec("IMAGE", "BYTES"),
        TensorSpec("INFO", "BYTES"),
    ),
    decoupled=True,
)


# Fields whose name is not the tensor's in lower case.
_FIELDS = {
    "IMAGE": "input_image",
    "REFERENCE_MASK_R": "reference_mask_R",
    **{spec.name: f"conditional_images.{n}" for n, spec in enumerate(CONDITIONAL_IMAGES)},
}


def edit_request(job_id: str, params: EditParams) -> Any:
    """Build the ModelInferRequest of one edit, without the fields that are None."""
    request = service_pb2.ModelInferRequest(model_name=IMAGE_EDIT.model, id=job_id)
    for spec, image in zip(CONDITIONAL_IMAGES, params.conditional_images, strict=False):
        add_input(request, spec, (image,))
    for spec in EDIT_INPUTS:
        if spec in CONDITIONAL_IMAGES:
            continue
        if (value := getattr(params, spec.name.lower())) is not None:
            add_input(request, spec, (value,))
    return request


def cancel_request(job_id: str) -> Any:
    """Build the ModelInferRequest that cancels the job `job_id`; "" names none and is a ping."""
    request = service_pb2.ModelInferRequest(model_name=IMAGE_EDIT.model)
    add_input(request, CANCEL, (job_id,))
    return request


def edit_update(response: Any) -> EditProgress | EditResult:
    """Read one ModelInferResponse of an edit.

    Raises:
        BackendError: the response is not readable.
    """
    try:
        read = outputs(response)
        stage = Stage(read["STAGE"][0].decode())
        if stage is Stage.DONE:
            info = read["INFO"][0]
            # Not parsed, because it may have tens of megabytes.
            if not (info.startswith(b'{"') and info.endswith(b"}")):
                raise ValueError("INFO is no JSON object")
            return EditResult(read["IMAGE"][0], info)
        return EditProgress(
            stage=stage,
            step=read["STEP"][0],
            total_steps=read["TOTAL_STEPS"][0],
            # To the digits that FP32 holds.
            progress=round(read["PROGRESS"][0], 6),
            preview=next(iter(read.get("PREVIEW_IMAGE", ())), b""),
            plan=_plan(read["INFO"][0]) if "INFO" in read else None,
        )
    except (LookupError, TypeError, ValueError, struct.error) as error:
        raise BackendError("Triton's answer to an edit is not readable") from error


def _plan(info: bytes) -> EditPlan:
    said = json.loads(info)
    seconds = said["expected_seconds"]
    return EditPlan(
        size=_size(said["size"]),
        computed_sizes=tuple(_size(each) for each in said["computed_sizes"]),
        expected_seconds=None if seconds is None else float(seconds),
    )


def _size(said: Any) -> tuple[int, int]:
    width, height = said
    return int(width), int(height)


def model_state(response: Any) -> EditModelState:
    """Read the ModelInferResponse to a CANCEL.

    Raises:
        BackendError: the response is not readable.
    """
    try:
        info = json.loads(outputs(response)["INFO"][0])
        return EditModelState(
            cancelled=bool(info["cancelled"]),
            bundle=str(info["model"]),
            waiting=int(info["waiting"]),
            running=int(info["running"]),
            max_queue_size=int(info["max_queue_size"]),
            adapters=frozenset(info["adapters"]),
            image_area=int(info["image_area"]),
            running_id=str(info["running_id"]),
            quiet_seconds=float(info["quiet_seconds"]),
        )
    except (LookupError, TypeError, ValueError, struct.error) as error:
        raise BackendError("Triton's answer to a ping is not readable") from error


def in_field_names(text: str) -> str:
    """Return the model's error text with fields for tensors, because REST knows only fields."""
    return IMAGE_EDIT.with_field_names(text, _FIELDS)
