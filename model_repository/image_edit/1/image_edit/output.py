"""Owns making the final picture from the generated one."""

import cv2
import numpy as np
from PIL import Image

from image_edit.conditions import Conditions, Pixels
from image_edit.spec import Size


def finish(generated: Pixels, size: Size, conditions: Conditions) -> Pixels:
    """Resize the picture to its exact size and, in the two-source flow, blend it into the source.

    Args:
        generated: RGB uint8 [height, width, 3], of any size.
        size: of the result.
        conditions: of the edit.

    Returns:
        RGB uint8 [height, width, 3].
    """
    picture = _resize(generated, size)
    if conditions.composite_mask is None:
        return picture
    source = _resize(conditions.source, size).astype(np.float32)
    mask = _resize(conditions.composite_mask, size).astype(np.float32)
    blend = source + mask[..., np.newaxis] / 255 * (picture.astype(np.float32) - source)
    result: Pixels = np.rint(blend).astype(np.uint8)
    return result


def encode_png(picture: Pixels) -> bytes:
    """Encode RGB, uint8 [height, width, 3], without loss.

    OpenCV's default settings make larger files than Pillow's, about ten times faster.
    """
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    png: bytes = data.tobytes()
    return png


def _resize(picture: Pixels, size: Size) -> Pixels:
    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
