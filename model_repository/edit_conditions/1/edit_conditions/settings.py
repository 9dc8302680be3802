"""Owns the model's settings, read once from config.pbtxt's parameters."""

from dataclasses import dataclass
from pathlib import Path

from edit_conditions.quality import InputQuality
from model_kit.parameters import Parameters


@dataclass(frozen=True)
class ConditionSettings:
    """What config.pbtxt decides for every request; config.pbtxt explains each."""

    input_quality: InputQuality
    max_image_pixels: int
    lama_model: Path | None
    shadow_hint: bool

    @classmethod
    def from_parameters(cls, parameters: Parameters) -> "ConditionSettings":
        """Read the parameters.

        Raises:
            ValueError: a parameter is missing or has a bad value, by name.
        """
        return cls(
            input_quality=InputQuality(parameters.choice("INPUT_QUALITY", InputQuality)),
            max_image_pixels=parameters.positive("MAX_IMAGE_PIXELS"),
            lama_model=parameters.optional_file("LAMA_MODEL"),
            shadow_hint=parameters.flag("SHADOW_HINT"),
        )
