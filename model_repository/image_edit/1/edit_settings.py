"""The model's settings, read once from config.pbtxt's parameters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DTYPES = ("float32", "bfloat16", "float16")
QUANTIZATIONS = ("none", "int8")
SWITCH = ("true", "false")
MAX_SHIFT = 10.0


@dataclass(frozen=True)
class EditSettings:
    """What config.pbtxt decides for every request; config.pbtxt explains each."""

    bundle: Path
    dtype: str
    """One of `DTYPES`."""
    int8: bool
    """Whether the linear layers of transformer and text encoder are kept in 8 bits."""
    vae_tiling: bool
    condition_area: int | None
    """Pixels; None: the output's own area."""
    max_queue_size: int
    max_request_bytes: int
    scheduler_shift: float
    """Above 0, at most 10."""
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
            dtype=_choice(parameters, "DTYPE", DTYPES),
            int8=_choice(parameters, "QUANTIZATION", QUANTIZATIONS) == "int8",
            vae_tiling=_choice(parameters, "VAE_TILING", SWITCH) == "true",
            condition_area=None if area == "output" else _positive(parameters, "CONDITION_AREA"),
            max_queue_size=_positive(parameters, "MAX_QUEUE_SIZE"),
            max_request_bytes=_positive(parameters, "MAX_REQUEST_BYTES"),
            scheduler_shift=_shift(parameters, "SCHEDULER_SHIFT"),
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


def _shift(parameters: Mapping[str, str], key: str) -> float:
    text = _text(parameters, key)
    try:
        shift = float(text)
    except ValueError:
        shift = math.nan
    if not 0 < shift <= MAX_SHIFT:
        raise ValueError(f"parameter {key} must be above 0 and at most {MAX_SHIFT}, not {text!r}")
    return shift
