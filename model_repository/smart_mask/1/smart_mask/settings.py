"""Owns the model's settings, read once from config.pbtxt's parameters."""

from dataclasses import dataclass
from pathlib import Path

from model_kit.bundles import MANIFEST, BundleError, read_manifest
from model_kit.parameters import Parameters

AUTO = "auto"
# FastSAM's own, for bundles that name none.
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
    def from_parameters(cls, parameters: Parameters) -> "MaskSettings":
        """Read the parameters and the bundle's manifest.

        Raises:
            ValueError: a parameter is missing or has a bad value, by name; or the bundle's
                manifest cannot be read.
        """
        name, image_size, confidence = _read_bundle(parameters.path("BUNDLE"))
        if parameters.text("CONFIDENCE") != AUTO:
            confidence = parameters.fraction("CONFIDENCE")
        return cls(
            network=name,
            image_size=image_size,
            confidence=confidence,
            iou=parameters.fraction("IOU"),
            max_detections=parameters.positive("MAX_DETECTIONS"),
            workers=parameters.positive("WORKERS"),
            max_queue_size=parameters.positive("MAX_QUEUE_SIZE"),
            cache_bytes=parameters.positive("CACHE_BYTES"),
            cache_ttl_s=parameters.positive("CACHE_TTL_S"),
            max_image_pixels=parameters.positive("MAX_IMAGE_PIXELS"),
            max_request_bytes=parameters.positive("MAX_REQUEST_BYTES"),
        )


def _read_bundle(bundle: Path) -> tuple[str, int, float]:
    """Return the network's name, the side of its input in pixels, and its confidence."""
    try:
        manifest = read_manifest(bundle)
        return (
            str(manifest["name"]),
            int(manifest["image_size"]),
            float(manifest.get("confidence", CONFIDENCE)),
        )
    except (BundleError, ValueError, LookupError, TypeError) as error:
        text = f"parameter BUNDLE: {bundle / MANIFEST} cannot be read: {error!r}"
        raise ValueError(text) from None
