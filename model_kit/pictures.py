"""Owns decoding one encoded picture to RGB pixels, as a browser shows it."""

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from model_kit.image_bounds import FORMATS, refusal


class ImageRefusedError(Exception):
    """The data must not or cannot be decoded; the text tells the client why."""


def decode_rgb(data: bytes, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Decode one encoded picture.

    The EXIF orientation is applied, because users draw on the upright picture. An animation
    gives its first frame. Transparency, a palette's too, is composited on white. Colour profiles
    are ignored.

    Args:
        data: a whole PNG, JPEG, WEBP, BMP, GIF or TIFF file.
        max_pixels: largest width x height, checked in the header before any pixel is decoded.

    Returns:
        RGB, uint8 [height, width, 3], 0..255.

    Raises:
        ImageRefusedError: not such a file, damaged, truncated, too large or too costly.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            if reason := refusal(picture, data, max_pixels):
                raise ImageRefusedError(reason)
            picture.load()
            return np.asarray(_on_white(_upright(picture)))
    except ImageRefusedError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageRefusedError(f"more than the {max_pixels} pixels allowed") from error
    except UnidentifiedImageError as error:
        raise _undecodable(f"not a {', '.join(FORMATS)} file") from error
    except Exception as error:
        # Pillow's parsers raise errors of any type on damaged files: OSError, SyntaxError,
        # ValueError, struct.error and more.
        raise _undecodable(str(error)) from error


def _undecodable(reason: str) -> ImageRefusedError:
    return ImageRefusedError(f"Invalid image data or unsupported format: {reason}")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        # The pixels are whole. Browsers ignore an unreadable EXIF block too.
        return picture


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
