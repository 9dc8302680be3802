"""Owns the JSON of requests for edits and of their answers, as documented at /docs."""

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from frontend.domain.edits import Size, Stage
from frontend.domain.jobs import JobEvent, JobStatus
from frontend.http.schemas.fields import (
    CROSS_FIELD,
    EXAMPLE_IMAGE,
    EXAMPLE_MASK,
    WHOLE,
    Int,
    Label,
    Prompt,
)
from frontend.http.schemas.unknown import JsonRequest, Warnings

# The models own these defaults; a contract test compares them. They stand here for the
# documentation, and the steps also because the queue has to know them.
DEFAULT_STEPS = 10
DEFAULT_TRUE_CFG_SCALE = 4.0
DEFAULT_GUIDANCE_SCALE = 1.0
MAX_SEED = 2**63 - 1

Side = Annotated[int, Field(ge=256, le=2048), WHOLE]
Steps = Annotated[int, Field(ge=1, le=100), WHOLE]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED), WHOLE]

# Fields that hold pictures; these are decoded before they are sent.
_PICTURES = {"input_image", "conditional_images", "reference_image", "reference_mask_r"}
_GUIDANCE = {"guidance_scale", "true_cfg_scale"}

NO_MASK = "conditional_images must include at least one image (mask) for insertion/removal tasks."
BAD_REGION = "region: must be full, auto or [x0, y0, x1, y1] with 0 <= x0 < x1 and 0 <= y0 < y1"
LOADING_MESSAGES: dict[Stage | None, str] = {
    Stage.LOADING: "Waiting for the model",
    Stage.CONDITIONING: "Preparing the condition images, or waiting for the engine",
    Stage.ENCODING: "Encoding the prompt and the images",
}

ENGINE_TAKEN_MESSAGE = "Waiting for the engine, which still works on an edit that has ended"
OUTAGE_MESSAGE = "Waiting for Triton to load the models"


def _region(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Say what a region may be in one sentence; pydantic says it for each of its types."""
    try:
        return handler(value)
    except ValidationError:
        raise PydanticCustomError(CROSS_FIELD, BAD_REGION) from None


class GenerationRequest(JsonRequest):
    """An edit. Unknown fields are ignored; types are strict: the string "10" is no number."""

    also_called: ClassVar[dict[str, str]] = {
        "mask": "conditional_images",
        "mask_image": "conditional_images",
    }

    model_config = ConfigDict(
        strict=True,
        allow_inf_nan=False,
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "prompt": "remove the ball",
                    "input_image": EXAMPLE_IMAGE,
                    "conditional_images": [EXAMPLE_MASK],
                    "task_type": "removal",
                    "num_inference_steps": 10,
                    "seed": 42,
                },
                {
                    "prompt": "put the ball on the table",
                    "input_image": EXAMPLE_IMAGE,
                    "conditional_images": [EXAMPLE_MASK],
                    "reference_image": EXAMPLE_IMAGE,
                    "task_type": "insertion",
                    "angle": "top-down",
                    "background_preset": "marble-surface",
                },
                {
                    "prompt": "neutral daylight",
                    "input_image": EXAMPLE_IMAGE,
                    "task_type": "white-balance",
                    "input_quality": "original",
                },
            ]
        },
    )

    prompt: Annotated[Prompt, Field(description="the edit that is wanted")]
    input_image: Annotated[
        str, Field(description="base64 or data URL of a PNG, JPEG, WebP, BMP, GIF or TIFF")
    ]
    conditional_images: Annotated[
        list[str] | None,
        Field(
            description="the first is the mask (white = edit), the rest are extra conditions;"
            " white-balance uses none of them"
        ),
    ] = None
    reference_image: Annotated[str | None, Field(description="the object to insert")] = None
    reference_mask_r: Annotated[
        str | None,
        Field(alias="reference_mask_R", description="where the object is in reference_image"),
    ] = None
    width: Annotated[Side | None, Field(description="of the output, pixels")] = None
    height: Annotated[Side | None, Field(description="of the output, pixels")] = None
    num_inference_steps: Annotated[Steps | None, Field(description="null: the default")] = (
        DEFAULT_STEPS
    )
    guidance_scale: Annotated[
        float | None,
        Field(
            ge=0.5,
            le=20,
            description="replaces a true_cfg_scale of null; otherwise only models that are"
            " guidance-distilled read it",
        ),
    ] = DEFAULT_GUIDANCE_SCALE
    true_cfg_scale: Annotated[
        float | None,
        Field(
            ge=0.5,
            le=15,
            description="strength of classifier-free guidance; null: guidance_scale, or 4.0 if"
            " that is null too",
        ),
    ] = DEFAULT_TRUE_CFG_SCALE
    negative_prompt: Annotated[Prompt | None, Field(description="what to avoid")] = None
    seed: Annotated[Seed | None, Field(description="null: one is drawn and reported")] = None
    task_type: Annotated[
        Literal["insertion", "removal", "white-balance"] | None,
        Field(description="null: insertion if there is a reference_image, else removal"),
    ] = None
    angle: Annotated[Label | None, Field(description="camera angle, added to the prompt")] = None
    background_preset: Annotated[Label | None, Field(description="added to the prompt")] = None
    input_quality: Annotated[
        Literal["resized", "original"] | None,
        Field(description="resized: the input is fitted into a square; null: as configured"),
    ] = None
    enable_flowmatch_scheduler: Annotated[
        bool | None, Field(description="static instead of dynamic shifting of the timesteps")
    ] = None
    mask_tool_type: Annotated[
        Literal["brush", "box"] | None, Field(description="how the mask was drawn")
    ] = None
    region: Annotated[
        Literal["full", "auto"] | Annotated[list[Int], Field(min_length=4, max_length=4)] | None,
        Field(
            description="full: the whole picture; auto: crops around the masked objects, given back"
            " in the picture as it was sent; or a crop [x0, y0, x1, y1] in its pixels, with"
            " 0 <= x0 < x1 and 0 <= y0 < y1"
        ),
        WrapValidator(_region),
    ] = None
    preview: Annotated[
        bool | None, Field(description="adds a small picture to the event of each step")
    ] = None
    retry: Annotated[
        bool | None,
        Field(description="false: an edit that is lost with what runs it is not begun anew"),
    ] = None
    debug: Annotated[
        bool | None,
        Field(
            description="false: the result's debug_info is null, which leaves most of its bytes"
            " out, on the server too"
        ),
    ] = None

    @property
    def warnings(self) -> list[str]:
        """As JsonRequest has them, and one for each picture that the edit has no use for."""
        return [*super().warnings, *self._unused()]

    def _unused(self) -> Iterator[str]:
        task = self.resolved_task_type
        if task == "white-balance" and self.conditional_images:
            yield "conditional_images: white-balance uses none; region says what is changed"
        if task != "insertion" and self.reference_image:
            yield f"reference_image: {task} uses none; task_type insertion does"
        elif self.reference_mask_r and len(self.conditional_images or ()) > 1:
            yield "conditional_images: beside reference_mask_R only the first, the mask, is used"

    @property
    def resolved_task_type(self) -> str:
        """The task; the reference image decides if the request does not name one."""
        return self.task_type or ("insertion" if self.reference_image else "removal")

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields of EditParams, except the pictures.

        A field that the client has left out is missing, because the model owns its default. The
        task and the number of steps are always there: the queue admits and orders jobs by them.
        """
        given = self.model_dump(exclude=_PICTURES | {"retry"}, exclude_unset=True)
        if isinstance(self.region, list):
            given["region"] = json.dumps(self.region)
        if _GUIDANCE & given.keys():
            # Both or none: the model uses guidance_scale if true_cfg_scale is absent, and this API
            # only if it is null.
            given |= self.model_dump(include=_GUIDANCE)
        return given | {
            "task_type": self.resolved_task_type,
            "num_inference_steps": self.num_inference_steps or DEFAULT_STEPS,
        }

    @model_validator(mode="after")
    def _require_what_belongs_together(self) -> Self:
        if self.resolved_task_type != "white-balance" and not self.conditional_images:
            raise PydanticCustomError(CROSS_FIELD, NO_MASK)
        if self.reference_mask_r and not self.reference_image:
            raise PydanticCustomError(CROSS_FIELD, "reference_mask_R needs reference_image")
        if isinstance(self.region, list):
            x0, y0, x1, y1 = self.region
            if not (0 <= x0 < x1 and 0 <= y0 < y1):
                raise PydanticCustomError(CROSS_FIELD, BAD_REGION)
        return self


class TaskQueued(BaseModel):
    """An edit was accepted."""

    task_id: str
    status: Literal["queued"] = "queued"
    message: str
    size: Annotated[
        Size | None,
        Field(description="width and height of the picture to come; null: the model decides"),
    ]
    eta_seconds: Annotated[
        float | None, Field(description="until the job's end; null: no edit was measured yet")
    ]
    warnings: Warnings


class StreamToken(BaseModel):
    """What opens one event stream for a client that cannot send a key."""

    token: str = Field(description="appended to the stream's URL as ?token=; empty: none is needed")
    expires_in: int | None = Field(description="seconds within which the stream must begin")


class TaskCancelled(BaseModel):
    """A cancel was noted, or came after the job's end."""

    success: bool = True
    message: str
    task_id: str
    status: Annotated[JobStatus, Field(description="of the job when the cancel came")]


class TaskStatus(BaseModel):
    """What is known about a job."""

    task_id: str
    status: JobStatus
    progress: Annotated[float, Field(description="0 to 1, never falling; 1 exactly when done")]
    current_step: Annotated[int, Field(description="denoising steps finished")]
    total_steps: int
    error: Annotated[str | None, Field(description="null while healthy")]
    loading_message: Annotated[str | None, Field(description="null unless being prepared")]
    stage: Annotated[Stage | None, Field(description="what the model is doing")]
    queue_position: Annotated[int | None, Field(description="1: next to start")]
    eta_seconds: Annotated[float | None, Field(description="until the job's end, where known")]
    size: Annotated[Size | None, Field(description="of the picture to come, where known")]
    computed_sizes: Annotated[
        list[Size] | None,
        Field(description="what the model computes, one for each region; null: not known yet"),
    ]
    restarts: Annotated[
        int, Field(description="how often the job was begun anew, as what ran it was lost")
    ]


class ListedTask(TaskStatus):
    """One job of a list."""

    task_type: Literal["insertion", "removal", "white-balance"]
    created_at: Annotated[datetime, Field(description="UTC")]
    ended_at: Annotated[datetime | None, Field(description="UTC; null until the job's end")]


class TaskList(BaseModel):
    """Jobs, newest first."""

    tasks: list[ListedTask]
    next_before: Annotated[
        int | None, Field(description="`before` of the next page; null: this was the last")
    ]


class StreamEvent(TaskStatus):
    """The data of one event of a job's stream."""

    preview_image: Annotated[str | None, Field(description="base64 WebP, where asked for")]


class GenerationResult(BaseModel):
    """A finished edit."""

    task_id: str
    status: Literal["done"] = "done"
    success: bool = True
    request_id: Annotated[str, Field(description="for /api/visualization; the same as task_id")]
    image: Annotated[str, Field(description="base64 PNG")]
    debug_info: dict[str, Any] | None
    model_used: str
    parameters_used: dict[str, Any]
    generation_time: Annotated[float, Field(description="seconds")]
    timings: Annotated[dict[str, float], Field(description="seconds by stage")]


def task_status(task_id: str, event: JobEvent) -> TaskStatus:
    """Show a job's newest event; what is left is counted from now on."""
    return TaskStatus(**_fields_now(task_id, event))


def listed_task(task_id: str, task_type: str, created_at: float, event: JobEvent) -> ListedTask:
    """Show a job in a list.

    Args:
        task_id: the job.
        task_type: what the edit is.
        created_at: seconds since 1970.
        event: its newest event.
    """
    ended = datetime.fromtimestamp(event.at, UTC) if event.status.terminal else None
    times = {"created_at": datetime.fromtimestamp(created_at, UTC), "ended_at": ended}
    return ListedTask(**_fields_now(task_id, event), task_type=task_type, **times)


def stream_event(task_id: str, event: JobEvent) -> StreamEvent:
    """Show an event of a job's log."""
    preview = base64.b64encode(event.preview).decode() if event.preview else None
    return StreamEvent(**_fields(task_id, event), preview_image=preview)


def _fields_now(task_id: str, event: JobEvent) -> dict[str, Any]:
    left_s = event.eta_seconds
    if left_s is not None:
        left_s = round(max(0.0, left_s - (time.time() - event.at)), 3)
    return _fields(task_id, event) | {"eta_seconds": left_s}


def _fields(task_id: str, event: JobEvent) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "status": event.status,
        "progress": event.progress,
        "current_step": event.current_step,
        "total_steps": event.total_steps,
        "error": event.error,
        "loading_message": _loading_message(event),
        "stage": event.stage,
        "queue_position": event.queue_position,
        "eta_seconds": event.eta_seconds,
        "size": event.size,
        "computed_sizes": event.computed_sizes,
        "restarts": event.restarts,
    }


def _loading_message(event: JobEvent) -> str | None:
    if event.engine_taken:
        return ENGINE_TAKEN_MESSAGE
    if not event.triton_down:
        return LOADING_MESSAGES.get(event.stage)
    return f"{OUTAGE_MESSAGE}: {event.triton_loading}" if event.triton_loading else OUTAGE_MESSAGE


def result_frame(task_id: str) -> tuple[bytes, bytes]:
    """Return what stands around the picture in a GenerationResult as JSON.

    The model's own JSON follows as it is, without its opening brace: with its debug pictures it
    has tens of megabytes, and reading and writing it again would hold up every stream for as long.

    Args:
        task_id: the job.

    Returns:
        The text before the picture's base64 and the text behind it.
    """
    own = {"task_id": task_id, "status": "done", "success": True, "request_id": task_id}
    return json.dumps(own).encode()[:-1] + b', "image": "', b'", '


def without_debug(info: bytes) -> bytes:
    """Return the model's JSON of a result with a `debug_info` of null."""
    return json.dumps(json.loads(info) | {"debug_info": None}).encode()
