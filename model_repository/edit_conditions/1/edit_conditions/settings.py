"""The model's settings, read once from config.pbtxt's parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edit_conditions.quality import InputQuality


@dataclass(frozen=True)
class ConditionSettings:
    """What config.pbtxt decides for every request; config.pbtxt explains each."""

    input_quality: InputQuality
    max_image_pixels: int
    max_conditional_images: int
    lama_model: Path | None
    shadow_hint: bool

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], folder: Path) -> "ConditionSettings":
        """Reads the parameters; other keys belong to Triton.

        Args:
            parameters: key to string_value.
            folder: the model's folder, where a relative LAMA_MODEL starts.

        Raises:
            ValueError: a parameter is missing or has a bad value, by name.
        """
        return cls(
            input_quality=_input_quality(parameters),
            max_image_pixels=_positive(parameters, "MAX_IMAGE_PIXELS"),
            max_conditional_images=_positive(parameters, "MAX_CONDITIONAL_IMAGES"),
            lama_model=_optional_file(parameters, "LAMA_MODEL", folder),
            shadow_hint=_flag(parameters, "SHADOW_HINT"),
        )


def _text(parameters: Mapping[str, str], key: str) -> str:
    if key not in parameters:
        raise ValueError(f"parameter {key} is missing")
    return parameters[key]


def _input_quality(parameters: Mapping[str, str]) -> InputQuality:
    text = _text(parameters, "INPUT_QUALITY")
    try:
        return InputQuality(text)
    except ValueError:
        raise ValueError(
            f"parameter INPUT_QUALITY must be {' or '.join(InputQuality)}, not {text!r}"
        ) from None


def _positive(parameters: Mapping[str, str], key: str) -> int:
    text = _text(parameters, key)
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise ValueError(f"parameter {key} must be a whole number above 0, not {text!r}")
    return int(text)


def _flag(parameters: Mapping[str, str], key: str) -> bool:
    text = _text(parameters, key)
    if text not in ("true", "false"):
        raise ValueError(f"parameter {key} must be true or false, not {text!r}")
    return text == "true"


def _optional_file(parameters: Mapping[str, str], key: str, folder: Path) -> Path | None:
    text = _text(parameters, key)
    if not text:
        return None
    path = folder / text
    if not path.is_file():
        raise ValueError(f"parameter {key}: there is no file {path}")
    return path
