"""Owns the words that all layers share: what is asked of the models, what they answer, jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job is; `done`, `error` and `cancelled` are final."""

    QUEUED = "queued"
    PROCESSING = "processing"
    DONE = "done"
    ERROR = "error"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return self in (JobStatus.DONE, JobStatus.ERROR, JobStatus.CANCELLED)


class Stage(StrEnum):
    """What the model is doing for a job, in this order."""

    LOADING = "loading"
    CONDITIONING = "conditioning"
    ENCODING = "encoding"
    DENOISING = "denoising"
    DECODING = "decoding"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class EditParams:
    """One edit as it is sent to the model; each field is the input tensor of the same name.

    Images are encoded files (PNG, JPEG, WebP, BMP, GIF or TIFF). None is not sent: the model
    applies its own default.
    """

    prompt: str
    image: bytes = field(repr=False)
    conditional_images: tuple[bytes, ...] = field(default=(), repr=False)
    reference_image: bytes | None = field(default=None, repr=False)
    reference_mask_r: bytes | None = field(default=None, repr=False)
    negative_prompt: str | None = None
    task_type: str
    angle: str | None = None
    background_preset: str | None = None
    input_quality: str | None = None
    mask_tool_type: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int
    guidance_scale: float | None = None
    true_cfg_scale: float | None = None
    seed: int
    enable_flowmatch_scheduler: bool | None = None
    preview: bool = False

    @property
    def image_bytes(self) -> int:
        """Bytes of all its images."""
        others = (*self.conditional_images, self.reference_image, self.reference_mask_r)
        return len(self.image) + sum(len(image) for image in others if image)


@dataclass(frozen=True)
class EditProgress:
    """One response of the model before the last.

    Attributes:
        stage: what the model is doing.
        step: denoising steps finished, 0..total_steps.
        total_steps: denoising steps of the job.
        progress: share of the job's time that is over, 0..1.
        preview: a small WebP of the current latents, or empty.
    """

    stage: Stage
    step: int
    total_steps: int
    progress: float
    preview: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class EditResult:
    """The model's last response.

    Attributes:
        image: the edited picture, PNG.
        info: a JSON object (UTF-8, not empty) with debug_info, parameters_used, model_used,
            generation_time (s) and timings (s by stage).
    """

    image: bytes = field(repr=False)
    info: bytes = field(repr=False)


@dataclass(frozen=True)
class Picture:
    """An encoded picture that a client has sent.

    Attributes:
        data: the file (PNG, JPEG, WebP, BMP, GIF or TIFF), or what was sent for one.
        image_id: SHA-256 of `data`, hexadecimal.
        text_digest: SHA-256 of the base64 that it came as; tells the same upload at once.
    """

    data: bytes = field(repr=False)
    image_id: str
    text_digest: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class MaskPrompts:
    """What to find in a picture; each field is the input tensor of the same name.

    Coordinates are pixels of the upright picture. None is not sent.

    Attributes:
        points: x and y each.
        point_labels: of each point, 1 inside the object, 0 outside; empty: all 1.
        bbox: x0, y0, x1, y1.
        mask: a rough mask of the object, an encoded file.
        auto_detect: take the most salient object.
        border_adjustment: grows the mask, or shrinks it where negative; in pixels.
        use_blur: softer edges.
    """

    points: tuple[tuple[float, float], ...] = ()
    point_labels: tuple[int, ...] = ()
    bbox: tuple[float, ...] | None = None
    mask: bytes | None = field(default=None, repr=False)
    auto_detect: bool | None = None
    border_adjustment: int | None = None
    use_blur: bool | None = None


@dataclass(frozen=True)
class MaskResult:
    """The model's answer to a mask request.

    Attributes:
        mask: PNG, grey, of the upright picture's size; 255 = object.
        image_id: of the picture.
        score: the network's confidence in the object, 0..1.
        cached: whether the network did not have to run.
        timings: seconds by stage.
    """

    mask: bytes = field(repr=False)
    image_id: str
    score: float
    cached: bool
    timings: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """A model's answer to a ping or a cancel.

    Attributes:
        cancelled: whether the job named by the request was found and told to stop.
        bundle: name of the loaded weights.
        waiting: jobs in the model's own queue.
        running: jobs that the model works on.
        max_queue_size: most jobs its queue takes.
    """

    cancelled: bool
    bundle: str
    waiting: int
    running: int
    max_queue_size: int


@dataclass(frozen=True, kw_only=True)
class EditModelState(ModelState):
    """image_edit's answer.

    Attributes:
        adapters: task types that the bundle can run.
    """

    adapters: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class MaskModelState(ModelState):
    """smart_mask's answer.

    Attributes:
        network_answers: whether fastsam answered it the last time.
        cache: counters of its cache of features, by name.
    """

    network_answers: bool
    cache: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobEvent:
    """One entry of a job's log: everything that a client may know about the job then.

    Attributes:
        status: the job's state.
        total_steps: denoising steps of the job.
        current_step: steps finished.
        progress: 0..1, never falling; 1 exactly when done.
        stage: what the model is doing; None before Triton has the job and after its end.
        error: why the job ended, of `error` and `cancelled` only.
        queue_position: 1 for the next job to start; None unless waiting.
        triton_away: whether it waits because Triton cannot run the model now.
        triton_loading: what Triton is doing to run it again, where it tells.
        eta_seconds: seconds from `at` to the job's expected end, where known.
        preview: a small WebP, or empty.
        at: time.time() of the event.
    """

    status: JobStatus
    total_steps: int
    current_step: int = 0
    progress: float = 0.0
    stage: Stage | None = None
    error: str | None = None
    queue_position: int | None = None
    triton_away: bool = False
    triton_loading: str | None = None
    eta_seconds: float | None = None
    preview: bytes = field(default=b"", repr=False)
    at: float
