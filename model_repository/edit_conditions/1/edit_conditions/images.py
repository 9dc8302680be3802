"""Owns pictures in memory: from encoded files, resizing, and PNG for debug_info."""

import base64

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.Image import Resampling

from model_kit.errors import invalid
from model_kit.foreign import decode, decode_mask
from model_kit.masks import MaskError
from model_kit.pictures import ImageRefusedError, Picture

# uint8, [height, width, 3] in RGB order or [height, width]; 0..255.
Pixels = npt.NDArray[np.uint8]


def read_picture(data: bytes, field: str, max_pixels: int) -> Picture:
    """Decode a picture as `model_kit.pictures.decode` does.

    Args:
        data: the encoded file.
        field: the input's name, for the error.
        max_pixels: largest width x height.

    Raises:
        CodedError: INVALID_ARGUMENT: not such a file, damaged, truncated, too large or too costly.
    """
    try:
        return decode(data, max_pixels)
    except ImageRefusedError as error:
        raise invalid(field, str(error)) from error


def read_mask(data: bytes, field: str, max_pixels: int) -> Pixels:
    """Decode a mask by what it means: uint8 [height, width], 255 = edit, soft.

    Raises:
        CodedError: INVALID_ARGUMENT: as `read_picture`, or the mask is empty, or can be read in
            two ways.
    """
    try:
        return decode_mask(data, max_pixels)
    except (ImageRefusedError, MaskError) as error:
        raise invalid(field, str(error)) from error


def size_of(pixels: Pixels) -> tuple[int, int]:
    """Return width and height in pixels."""
    return pixels.shape[1], pixels.shape[0]


def resize(pixels: Pixels, size: tuple[int, int], resampling: Resampling) -> Pixels:
    """Stretch a picture or mask to width and height; return the same array if it fits."""
    if size_of(pixels) == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))


def resize_part(
    pixels: Pixels, part: tuple[float, float, float, float], size: tuple[int, int]
) -> Pixels:
    """Stretch a part of a picture to width and height, by LANCZOS.

    Args:
        pixels: the picture.
        part: left, top, right and bottom edge as fractions of the picture, 0..1.
        size: width and height in pixels.
    """
    if part == (0, 0, 1, 1):
        return resize(pixels, size, Resampling.LANCZOS)
    (left, top, right, bottom), (width, height) = part, size_of(pixels)
    box = (left * width, top * height, right * width, bottom * height)
    return np.asarray(Image.fromarray(pixels).resize(size, Resampling.LANCZOS, box))


def encode_png(pixels: Pixels) -> str:
    """Encode a picture or mask as base64 PNG; OpenCV's default level is also its fastest."""
    bgr = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".png", bgr)
    return base64.b64encode(encoded.tobytes()).decode("ascii")
