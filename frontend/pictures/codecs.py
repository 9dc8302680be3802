"""Owns decoding and encoding of images, within bounds.

Whatever takes a stranger's bytes runs in a worker, which `workers` starts. Its first arguments are
files, and it returns files: bytes, or their parts.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops

from frontend.errors import IMAGE_REFUSED, InvalidInputError
from frontend.pictures.aspects import stretched
from model_kit import raster
from model_kit.colour import tagged_png
from model_kit.masks import NOTHING_SET, THRESHOLD, EmptyMaskError, MaskError, covers
from model_kit.pictures import (
    ImageRefusedError,
    UndecodableError,
    decode,
    decode_mask,
    decode_rgb,
    warm_up,
)

if TYPE_CHECKING:
    from model_kit.raster import Buffer
    from model_kit.sizes import Size

__all__ = [
    "digest",
    "extract",
    "file",
    "image_format",
    "mask",
    "picture",
    "png_size",
    "rough_mask",
    "shown",
    "warm_up",
    "webp",
]

REFUSALS = (InvalidInputError,)
"""By which the functions for workers refuse a file; the text is the whole answer."""

WEBP_MAX_SIDE = 2560
WEBP_QUALITY = 80
WEBP_METHOD = 6
# Higher levels take several times as long and hardly make a photograph smaller.
EXTRACT_COMPRESS_LEVEL = 1

# As browsers find it (https://fetch.spec.whatwg.org/#data-url-processor).
_MARKER = re.compile(rb"; *base64 *,", re.IGNORECASE)
_NOT_BASE64 = "not base64 ({}): send the bytes of the file as base64, not its path or address"
_BLANKS = b" \t\n\v\f\r"
_STARTS = (
    (b"\x89PNG", "png"),
    (b"\xff\xd8", "jpeg"),
    (b"RIFF", "webp"),
    (b"GIF", "gif"),
    (b"BM", "bmp"),
)


def image_format(data: bytes) -> str:
    """Return the format of a file that was decoded, as in its media type: png, jpeg..."""
    return next((name for start, name in _STARTS if data.startswith(start)), "tiff")


def digest(text: str) -> bytes:
    """Return the SHA-256 of an image's base64: enough to recognise an upload."""
    # JSON may hold half a surrogate pair; the decoder refuses that text later.
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def png_size(png: bytes) -> Size:
    """Return width and height of a PNG that a model made."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return image.size


def webp(png: bytes) -> tuple[bytes, str]:
    """Encode a PNG for display, its longest side at most WEBP_MAX_SIDE.

    Args:
        png: as a model made it.

    Returns:
        The image and its media type: WebP, or the PNG itself if it cannot be encoded.
    """
    buffer = io.BytesIO()
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            # The profile, if there is one, says what the pixels are in both formats.
            profile = image.info.get("icc_profile")
            image.thumbnail((WEBP_MAX_SIDE, WEBP_MAX_SIDE), Image.Resampling.LANCZOS)
            image.save(
                buffer, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD, icc_profile=profile
            )
    except (OSError, ValueError):
        return png, "image/png"
    return buffer.getvalue(), "image/webp"


# --- in a worker ---


def picture(text: bytes, field: str, max_pixels: int, *, keep: bool) -> list[list[Buffer]]:
    """Decode a picture.

    Args:
        text: base64 or a data URL.
        field: the request's field, for the error text.
        max_pixels: largest width x height.
        keep: whether the file is wanted too.

    Returns:
        The picture as plain pixels, and then the file where it is wanted.

    Raises:
        InvalidInputError: the text is not one whole image of FORMATS within the bounds.
    """
    data = _from_base64(field, text)
    try:
        read = decode(data, max_pixels)
    except ImageRefusedError as error:
        raise _refused(field, error) from None
    pixels = raster.write(read.native, read.alpha, read.profile)
    return [pixels, [data]] if keep else [pixels]


def mask(text: bytes, field: str, max_pixels: int) -> list[list[Buffer]]:
    """Decode a mask to plain pixels, by what it means; see `picture`.

    Raises:
        InvalidInputError: as there, or it is empty, or can be read in two ways.
    """
    try:
        return [raster.write(decode_mask(_from_base64(field, text), max_pixels))]
    except (ImageRefusedError, MaskError) as error:
        raise _refused(field, error) from None


def file(text: bytes, field: str) -> list[bytes]:
    """Return the file that a client sent as base64, unseen.

    Raises:
        InvalidInputError: the text is not base64; it begins with the field.
    """
    if field == IMAGE_REFUSED:
        try:
            return [_base64_bytes(text)]
        except ValueError as error:
            raise InvalidInputError(f"{field}: {_NOT_BASE64.format(error)}") from None
    return [_from_base64(field, text)]


def shown(data: bytes, max_pixels: int) -> list[list[Buffer]]:
    """Decode the file of a mask request to what is shown of it, as plain pixels.

    Raises:
        InvalidInputError: as `picture`, in the contract's words.
    """
    try:
        return [raster.write(decode_rgb(data, max_pixels))]
    except ImageRefusedError as error:
        raise InvalidInputError(f"{IMAGE_REFUSED}: {error}") from None


def rough_mask(data: bytes, max_pixels: int) -> list[list[Buffer]]:
    """Decode the file of a mask to plain pixels, by what it means.

    Raises:
        InvalidInputError: as `mask`.
    """
    try:
        return [raster.write(decode_mask(data, max_pixels))]
    except (ImageRefusedError, MaskError) as error:
        raise InvalidInputError(f"mask: {error}") from None


def extract(image: bytes, mask: bytes, max_pixels: int) -> list[bytes]:
    """Cut an object out of a picture.

    Args:
        image: the picture, base64 or a data URL.
        mask: white on the object, likewise; stretched to the picture if the sizes differ.
        max_pixels: largest width x height of either.

    Returns:
        PNG, RGBA in sRGB, of the upright picture's size. Its alpha is the mask times the picture's
        own. Behind it warnings of what is doubtful, UTF-8.

    Raises:
        InvalidInputError: one is not a whole image of FORMATS within the bounds, or the mask
            is empty, perhaps only once it is stretched, or covers nothing that is visible.
    """
    try:
        picture = decode(_from_base64("image", image), max_pixels)
    except ImageRefusedError as error:
        raise _refused("image", error) from None
    try:
        alpha = Image.fromarray(decode_mask(_from_base64("mask", mask), max_pixels))
    except EmptyMaskError as error:
        raise InvalidInputError(str(error)) from None  # the contract's words come first
    except (ImageRefusedError, MaskError) as error:
        raise _refused("mask", error) from None
    cut = Image.fromarray(picture.in_srgb())
    warnings = stretched("mask", alpha.size, cut.size)
    if alpha.size != cut.size:
        alpha = alpha.resize(cut.size, Image.Resampling.NEAREST)
        if np.asarray(alpha).max() <= THRESHOLD:
            raise InvalidInputError(
                "{}: nothing of it is left at {}x{} pixels".format(NOTHING_SET, *cut.size)
            )
    if picture.alpha is not None:
        if not covers(np.asarray(alpha), picture.alpha):
            raise InvalidInputError("mask: covers only transparent parts of the image")
        # What was see-through stays so.
        alpha = ImageChops.multiply(alpha, Image.fromarray(picture.alpha))
    cut.putalpha(alpha)
    buffer = io.BytesIO()
    cut.save(buffer, "PNG", compress_level=EXTRACT_COMPRESS_LEVEL)
    return [tagged_png(buffer.getvalue(), None), *map(str.encode, warnings)]


def _from_base64(field: str, text: bytes) -> bytes:
    try:
        return _base64_bytes(text)
    except ValueError as error:
        raise _invalid(field, _NOT_BASE64.format(error)) from None


def _base64_bytes(text: bytes) -> bytes:
    text = text.strip()
    if text[:5].lower() == b"data:":
        # At the marker, because a parameter before it may hold a comma in quotes.
        marker = _MARKER.search(text)
        if not marker:
            raise ValueError("a data URL without ;base64,")
        text = text[marker.end() :]
    # Some encoders break lines. Any other byte outside the alphabet is an error.
    return base64.b64decode(text.translate(None, _BLANKS), validate=True)


def _refused(field: str, error: Exception) -> InvalidInputError:
    if isinstance(error, UndecodableError):
        return _invalid(field, error.reason)
    return InvalidInputError(f"{field}: {error}")


def _invalid(field: str, reason: str) -> InvalidInputError:
    return InvalidInputError(
        f"{field}: Invalid base64 image data or unsupported format: {reason[:200]}"
    )
