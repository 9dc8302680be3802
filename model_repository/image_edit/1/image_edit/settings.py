"""The model's settings, read once from config.pbtxt's parameters."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from image_edit.spec import MAX_SIDE, MIN_SIDE, Size

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("none", "int8", "fp8")
SWITCH = ("true", "false")
MAX_SHIFT = 10.0


@dataclass(frozen=True)
class Tuning:
    """How the pipeline is kept and run on its device."""

    dtype: str
    """One of `DTYPES`."""
    quantization: str = "none"
    """One of `QUANTIZATIONS`."""
    vae_tiling: bool = False
    attention_backend: str = "native"
    """As diffusers names it."""
    compile_blocks: bool = False
    step_cache: float = 0.0
    """Threshold of the First-Block-Cache, 0..1; 0: every step is computed."""


@dataclass(frozen=True)
class EditSettings:
    """What config.pbtxt decides for every request; config.pbtxt explains each."""

    bundle: Path
    tuning: Tuning
    warm_up_sizes: tuple[Size, ...]
    """At least one."""
    condition_area: int | None
    """Pixels; None: the output's own area."""
    max_queue_size: int
    max_request_bytes: int
    scheduler_shift: float
    """0.001..10"""
    static_schedule: bool
    """What a request without ENABLE_FLOWMATCH_SCHEDULER gets."""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], folder: Path) -> "EditSettings":
        """Reads the parameters; other keys belong to Triton.

        Args:
            parameters: key to string_value.
            folder: the model's folder, where a relative BUNDLE starts.

        Raises:
            ValueError: a parameter is missing or has a bad value, by name.
        """
        area = _text(parameters, "CONDITION_AREA")
        return cls(
            bundle=(folder / _text(parameters, "BUNDLE")).resolve(),
            tuning=Tuning(
                dtype=_choice(parameters, "DTYPE", DTYPES),
                quantization=_choice(parameters, "QUANTIZATION", QUANTIZATIONS),
                vae_tiling=_choice(parameters, "VAE_TILING", SWITCH) == "true",
                attention_backend=_text(parameters, "ATTENTION_BACKEND"),
                compile_blocks=_choice(parameters, "COMPILE", SWITCH) == "true",
                step_cache=_number(parameters, "STEP_CACHE", 0.0, 1.0),
            ),
            warm_up_sizes=_sizes(parameters, "WARM_UP_SIZES"),
            condition_area=None if area == "output" else _positive(parameters, "CONDITION_AREA"),
            max_queue_size=_positive(parameters, "MAX_QUEUE_SIZE"),
            max_request_bytes=_positive(parameters, "MAX_REQUEST_BYTES"),
            scheduler_shift=_number(parameters, "SCHEDULER_SHIFT", 1e-3, MAX_SHIFT),
            static_schedule=_choice(parameters, "ENABLE_FLOWMATCH_SCHEDULER", SWITCH) == "true",
        )


def _text(parameters: Mapping[str, str], key: str) -> str:
    if not parameters.get(key):
        raise ValueError(f"parameter {key} is missing")
    return parameters[key]


def _choice(parameters: Mapping[str, str], key: str, choices: tuple[str, ...]) -> str:
    text = _text(parameters, key)
    if text not in choices:
        raise ValueError(f"parameter {key} must be {' or '.join(choices)}, not {text!r}")
    return text


def _positive(parameters: Mapping[str, str], key: str) -> int:
    text = _text(parameters, key)
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise ValueError(f"parameter {key} must be a whole number above 0, not {text!r}")
    return int(text)


def _number(parameters: Mapping[str, str], key: str, least: float, most: float) -> float:
    text = _text(parameters, key)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise ValueError(f"parameter {key} must be a number of {least} to {most}, not {text!r}")
    return number


def _sizes(parameters: Mapping[str, str], key: str) -> tuple[Size, ...]:
    text = _text(parameters, key)
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
