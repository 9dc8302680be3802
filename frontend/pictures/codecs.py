"""Owns decoding and encoding of images, within bounds."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError

from frontend.domain.masks import Picture
from frontend.errors import IMAGE_REFUSED, InvalidInputError
from frontend.pictures.image_bounds import FORMATS, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

WEBP_MAX_SIDE = 2560
WEBP_QUALITY = 80
WEBP_METHOD = 6
# Higher levels take several times as long and hardly make a photograph smaller.
EXTRACT_COMPRESS_LEVEL = 1
# Pixels of a mask that are brighter than this belong to its object.
MASK_THRESHOLD = 128
EMPTY_MASK = "No object found in mask (no white pixels)"

# Pillow's own limit only warns. `refusal` checks the size of every image instead.
Image.MAX_IMAGE_PIXELS = None


def image_format(data: bytes) -> str:
    """Return the format of an image of FORMATS, as in its media type: png, jpeg..."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        # Pillow's name for a JPEG that holds several pictures, as many phones take them.
        return "jpeg" if image.format == "MPO" else str(image.format).lower()


def read(field: str, text: str, max_pixels: int) -> bytes:
    """Return the encoded image that a client sent as base64 or as a data URL.

    Args:
        field: the request's field, for the error text.
        text: base64 or a data URL.
        max_pixels: largest width x height.

    Raises:
        InvalidInputError: the text is not one whole image of FORMATS within the bounds.
    """
    data = from_base64(field, text)
    with _decoded(field, data, max_pixels):
        return data


def digest(text: str) -> bytes:
    """Return the SHA-256 of an image's base64: enough to recognise an upload."""
    # JSON may hold half a surrogate pair; the decoder refuses that text later.
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def picture(text: str, text_digest: bytes) -> Picture:
    """Return the file that a client sent, without looking at its pixels.

    Args:
        text: base64 or a data URL.
        text_digest: its `digest`.

    Raises:
        InvalidInputError: the text is not base64.
    """
    try:
        data = _base64_bytes(text)
    except ValueError as error:
        raise InvalidInputError(f"{IMAGE_REFUSED}: not base64 ({error})") from None
    return Picture(data, hashlib.sha256(data).hexdigest(), text_digest)


def extract(image: str, mask: str, max_pixels: int) -> bytes:
    """Cut an object out of a picture.

    Args:
        image: the picture, base64 or a data URL.
        mask: white on the object, likewise; stretched to the picture if the sizes differ.
        max_pixels: largest width x height of either.

    Returns:
        PNG, RGBA, of the upright picture's size, whose alpha is the mask.

    Raises:
        InvalidInputError: one is not a whole image of FORMATS within the bounds, or the mask
            is empty.
    """
    with _decoded("image", from_base64("image", image), max_pixels) as opened:
        picture = _on_white(upright(opened))
    with _decoded("mask", from_base64("mask", mask), max_pixels) as opened:
        alpha = _on_white(upright(opened)).convert("L")
    if alpha.size != picture.size:
        alpha = alpha.resize(picture.size, Image.Resampling.NEAREST)
    if not any(alpha.histogram()[MASK_THRESHOLD + 1 :]):
        raise InvalidInputError(EMPTY_MASK)
    picture.putalpha(alpha)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=EXTRACT_COMPRESS_LEVEL)
    return buffer.getvalue()


def upright(picture: Image.Image) -> Image.Image:
    """Return a picture turned as its EXIF orientation says, if Pillow can read that."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # a broken EXIF block makes Pillow raise almost anything
        return picture


def _on_white(picture: Image.Image) -> Image.Image:
    """Return a picture in RGB, transparent parts on white, as the models see it."""
    if picture.mode.startswith("I;16"):
        # By way of "I", because Pillow cannot compute with big-endian pixels.
        whole = picture.convert("I")
        return whole.point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _base64_bytes(text: str) -> bytes:
    if text.startswith("data:"):
        _, _, text = text.partition(",")
    # Some encoders break lines. Any other byte outside the alphabet is an error.
    return base64.b64decode("".join(text.split()), validate=True)


def from_base64(field: str, text: str) -> bytes:
    """Return the bytes that a client sent, without looking at them.

    Args:
        field: the request's field, for the error text.
        text: base64 or a data URL.

    Raises:
        InvalidInputError: the text is not base64.
    """
    try:
        return _base64_bytes(text)
    except ValueError as error:
        raise _invalid(field, f"not base64 ({error})") from None


@contextlib.contextmanager
def _decoded(field: str, data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image and decode all of it, because only that finds a truncated file."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if reason := refusal(image, data, max_pixels):
                raise InvalidInputError(f"{field}: {reason}")
            image.load()
            yield image
    except InvalidInputError:
        raise
    except UnidentifiedImageError:
        raise _invalid(field, f"not one of {', '.join(FORMATS)}") from None
    # Pillow's decoders raise almost anything for a broken file.
    except Exception as error:
        raise _invalid(field, f"damaged ({error})") from None


def _invalid(field: str, reason: str) -> InvalidInputError:
    return InvalidInputError(
        f"{field}: Invalid base64 image data or unsupported format: {reason[:200]}"
    )


def webp(png: bytes) -> tuple[bytes, str]:
    """Encode a PNG for display, its longest side at most WEBP_MAX_SIDE.

    Returns:
        The image and its media type: WebP, or the PNG itself if it cannot be encoded.
    """
    buffer = io.BytesIO()
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            image.thumbnail((WEBP_MAX_SIDE, WEBP_MAX_SIDE), Image.Resampling.LANCZOS)
            image.save(buffer, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
    except (OSError, ValueError):
        return png, "image/png"
    return buffer.getvalue(), "image/webp"
