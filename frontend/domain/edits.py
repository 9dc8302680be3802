"""Owns the words of an edit: what is asked of image_edit and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

Size = tuple[int, int]
"""Width and height in pixels."""


class Stage(StrEnum):
    """What the model is doing for a job, in this order."""

    LOADING = "loading"
    CONDITIONING = "conditioning"
    ENCODING = "encoding"
    DENOISING = "denoising"
    DECODING = "decoding"
    DONE = "done"

    @property
    def before_engine(self) -> bool:
        """Whether the job waits for the engine, and hears nothing meanwhile."""
        return self in (Stage.LOADING, Stage.CONDITIONING)


@dataclass(frozen=True, kw_only=True)
class EditParams:
    """One edit as it is sent to the model; each field is the input tensor of the same name.

    Only `conditional_images`, at most four, are an input each.
    Images and masks are plain pixels, see `model_kit.raster`. A field that is None is not sent, and
    the model applies its default.
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
    region: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int
    guidance_scale: float | None = None
    true_cfg_scale: float | None = None
    seed: int
    enable_flowmatch_scheduler: bool | None = None
    preview: bool | None = None
    debug: bool | None = None


@dataclass(frozen=True, kw_only=True)
class EditPlan:
    """What the model is about to compute for a job."""

    size: Size
    """Of the answer."""
    computed_sizes: tuple[Size, ...]
    """Of each part of the picture that the model generates."""
    expected_seconds: float | None
    """From then to the job's end, by what the model has learnt; None if it has not yet."""

    @property
    def pixels(self) -> int:
        """Pixels that each step computes."""
        return sum(width * height for width, height in self.computed_sizes)


@dataclass(frozen=True)
class EditProgress:
    """One response of the model before the last."""

    stage: Stage
    """What the model is doing."""
    step: int
    """Denoising steps finished, 0..total_steps."""
    total_steps: int
    """Denoising steps of the job."""
    progress: float
    """Fraction of the job's time that is over, 0..1."""
    preview: bytes = field(default=b"", repr=False)
    """A small WebP of the current latents, or empty."""
    plan: EditPlan | None = None
    """Only `encoding` has it."""


@dataclass(frozen=True)
class EditResult:
    """The model's last response."""

    image: bytes = field(repr=False)
    """The edited picture, PNG."""
    info: bytes = field(repr=False)
    """A JSON object (UTF-8, not empty) with debug_info, parameters_used, model_used,
    generation_time (s) and timings (s by stage)."""
