"""Pictures in memory: encoded files to RGB arrays, resizing, and PNG for debug_info."""

import base64
from io import BytesIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import Resampling

from condition_errors import InvalidInputError
from image_bounds import FORMATS, refusal

# uint8, [height, width, 3] in RGB order or [height, width]; 0..255.
Pixels = npt.NDArray[np.uint8]


def decode_image(data: bytes, field: str, max_pixels: int) -> Pixels:
    """Decodes one encoded picture to RGB, as a browser shows it.

    The EXIF orientation is applied, because the user drew the masks on the upright picture.
    An animation gives its first frame. Transparency, a palette's too, is composited on white.
    Colour profiles are ignored.

    Args:
        data: a whole PNG, JPEG, WEBP, BMP, GIF or TIFF file.
        field: the input's name, for the error.
        max_pixels: largest width x height, checked in the header before any pixel is decoded.

    Returns:
        RGB, uint8 [height, width, 3].

    Raises:
        InvalidInputError: not such a file, damaged, truncated, too large or too costly.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            if reason := refusal(picture, data, max_pixels):
                raise InvalidInputError(field, reason)
            picture.load()
            return np.asarray(_on_white(_upright(picture)))
    except InvalidInputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidInputError(field, f"more than {max_pixels} pixels") from error
    except UnidentifiedImageError as error:
        raise _undecodable(field, f"not a {', '.join(FORMATS)} file") from error
    except Exception as error:
        # Damaged files make Pillow's parsers raise whatever they stumble over: OSError,
        # SyntaxError, ValueError, struct.error and more.
        raise _undecodable(field, str(error)) from error


def size_of(pixels: Pixels) -> tuple[int, int]:
    """(width, height) in pixels."""
    return pixels.shape[1], pixels.shape[0]


def resize(pixels: Pixels, size: tuple[int, int], resampling: Resampling) -> Pixels:
    """Stretches a picture or mask to (width, height); the same array where it fits already."""
    if size_of(pixels) == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))


def encode_png(pixels: Pixels) -> str:
    """A picture or mask as base64 PNG; OpenCV's default level is also its fastest."""
    bgr = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".png", bgr)
    return base64.b64encode(encoded.tobytes()).decode("ascii")


def _undecodable(field: str, reason: str) -> InvalidInputError:
    return InvalidInputError(field, f"Invalid image data or unsupported format: {reason}")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        # The pixels are whole; like a browser, do without an EXIF block that cannot be read.
        return picture


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
