"""The model's settings, read once from config.pbtxt's parameters."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

AUTO = "auto"
# FastSAM's own, of bundles that say nothing.
CONFIDENCE = 0.25


@dataclass(frozen=True)
class MaskSettings:
    """What config.pbtxt decides for every request; config.pbtxt explains each."""

    network: str
    """Name of the bundle."""
    image_size: int
    """Side of the network's input in pixels, from the bundle's manifest."""
    confidence: float
    iou: float
    max_detections: int
    workers: int
    max_queue_size: int
    cache_bytes: int
    cache_ttl_s: float
    max_image_pixels: int
    max_request_bytes: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], folder: Path) -> "MaskSettings":
        """Reads the parameters and the bundle's manifest; other keys belong to Triton.

        Args:
            parameters: key to string_value.
            folder: the model's folder, where a relative BUNDLE starts.

        Raises:
            ValueError: a parameter is missing or has a bad value, by name; or the bundle's
                manifest cannot be read.
        """
        bundle = (folder / _text(parameters, "BUNDLE")).resolve()
        name, image_size, confidence = _read_manifest(bundle)
        if _text(parameters, "CONFIDENCE") != AUTO:
            confidence = _share(parameters, "CONFIDENCE")
        return cls(
            network=name,
            image_size=image_size,
            confidence=confidence,
            iou=_share(parameters, "IOU"),
            max_detections=_positive(parameters, "MAX_DETECTIONS"),
            workers=_positive(parameters, "WORKERS"),
            max_queue_size=_positive(parameters, "MAX_QUEUE_SIZE"),
            cache_bytes=_positive(parameters, "CACHE_BYTES"),
            cache_ttl_s=_positive(parameters, "CACHE_TTL_S"),
            max_image_pixels=_positive(parameters, "MAX_IMAGE_PIXELS"),
            max_request_bytes=_positive(parameters, "MAX_REQUEST_BYTES"),
        )


def _read_manifest(bundle: Path) -> tuple[str, int, float]:
    """Name, image_size and confidence of a bundle."""
    path = bundle / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return (
            str(manifest["name"]),
            int(manifest["image_size"]),
            float(manifest.get("confidence", CONFIDENCE)),
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"parameter BUNDLE: {path} cannot be read: {error!r}") from None


def _text(parameters: Mapping[str, str], key: str) -> str:
    if not parameters.get(key):
        raise ValueError(f"parameter {key} is missing")
    return parameters[key]


def _positive(parameters: Mapping[str, str], key: str) -> int:
    text = _text(parameters, key)
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise ValueError(f"parameter {key} must be a whole number above 0, not {text!r}")
    return int(text)


def _share(parameters: Mapping[str, str], key: str) -> float:
    text = _text(parameters, key)
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise ValueError(f"parameter {key} must be above 0 and below 1, not {text!r}")
    return share
