"""Owns input_quality: the size in which an edit of a whole picture is returned."""

from enum import StrEnum

from model_kit.errors import invalid

# Qwen2-VL's image processor refuses more than 200:1, after rounding of its own.
MAX_ASPECT_RATIO = 100


class InputQuality(StrEnum):
    """RESIZED returns a padded square of a fixed size, ORIGINAL the picture's own size."""

    RESIZED = "resized"
    ORIGINAL = "original"


def check_aspect(size: tuple[int, int], field: str) -> None:
    """Refuse what is more elongated than the model's image processor takes.

    Raises:
        CodedError: INVALID_ARGUMENT: more elongated than MAX_ASPECT_RATIO.
    """
    width, height = size
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise invalid(field, f"{width}x{height} is more elongated than {MAX_ASPECT_RATIO}:1")


def letterboxed_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return width and height of a picture that fills a square, its aspect kept."""
    width, height = (max(1, length * side // max(size)) for length in size)
    return width, height
