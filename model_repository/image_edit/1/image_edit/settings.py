"""Owns the model's settings, read once from config.pbtxt's parameters."""

import re
from dataclasses import dataclass
from pathlib import Path

from image_edit.spec import MAX_SIDE, MIN_SIDE, Size
from model_kit.parameters import Parameters

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("none", "int8", "fp8")
MAX_SHIFT = 10.0


@dataclass(frozen=True)
class Tuning:
    """How the pipeline is stored and run on its device."""

    dtype: str
    """One of `DTYPES`."""
    quantization: str = "none"
    """One of `QUANTIZATIONS`."""
    vae_tiling: bool = False
    attention_backend: str = "native"
    """As diffusers names it."""
    compile_blocks: bool = False
    step_cache: float = 0.0
    """Threshold of the First-Block-Cache, 0..1; 0 computes every step."""


@dataclass(frozen=True)
class EditSettings:
    """What config.pbtxt decides for every request; config.pbtxt explains each."""

    bundle: Path
    tuning: Tuning
    warm_up_sizes: tuple[Size, ...]
    """At least one."""
    condition_area: int | None
    """Pixels; None means the output's own area."""
    max_queue_size: int
    max_request_bytes: int
    scheduler_shift: float
    """0.001..10"""
    static_schedule: bool
    """Used for a request without ENABLE_FLOWMATCH_SCHEDULER."""

    @classmethod
    def from_parameters(cls, parameters: Parameters) -> "EditSettings":
        """Read the parameters.

        Raises:
            ValueError: a parameter is missing or has a bad value, by name.
        """
        area = parameters.text("CONDITION_AREA")
        return cls(
            bundle=parameters.path("BUNDLE"),
            tuning=Tuning(
                dtype=parameters.choice("DTYPE", DTYPES),
                quantization=parameters.choice("QUANTIZATION", QUANTIZATIONS),
                vae_tiling=parameters.flag("VAE_TILING"),
                attention_backend=parameters.text("ATTENTION_BACKEND"),
                compile_blocks=parameters.flag("COMPILE"),
                step_cache=parameters.number("STEP_CACHE", 0.0, 1.0),
            ),
            warm_up_sizes=_sizes(parameters, "WARM_UP_SIZES"),
            condition_area=None if area == "output" else parameters.positive("CONDITION_AREA"),
            max_queue_size=parameters.positive("MAX_QUEUE_SIZE"),
            max_request_bytes=parameters.positive("MAX_REQUEST_BYTES"),
            scheduler_shift=parameters.number("SCHEDULER_SHIFT", 1e-3, MAX_SHIFT),
            static_schedule=parameters.flag("ENABLE_FLOWMATCH_SCHEDULER"),
        )


def _sizes(parameters: Parameters, key: str) -> tuple[Size, ...]:
    text = parameters.text(key)
    sizes = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,5})x([0-9]{1,5})\s*", part)
        width, height = (int(match[1]), int(match[2])) if match else (0, 0)
        if not all(MIN_SIDE <= side <= MAX_SIDE for side in (width, height)):
            raise ValueError(
                f"parameter {key} must be sizes such as 1024x1024,512x768, sides of {MIN_SIDE} "
                f"to {MAX_SIDE}, not {text!r}"
            )
        sizes.append((width, height))
    return tuple(sizes)
