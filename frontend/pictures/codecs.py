"""Owns decoding and encoding of images, within bounds."""

from __future__ import annotations

import base64
import hashlib
import io

from PIL import Image, ImageChops

from frontend.domain.masks import Picture
from frontend.errors import IMAGE_REFUSED, InvalidInputError
from model_kit.colour import tagged_png
from model_kit.image_bounds import FORMATS
from model_kit.masks import EmptyMaskError, MaskError
from model_kit.pictures import ImageRefusedError, UndecodableError, decode, decode_mask

WEBP_MAX_SIDE = 2560
WEBP_QUALITY = 80
WEBP_METHOD = 6
# Higher levels take several times as long and hardly make a photograph smaller.
EXTRACT_COMPRESS_LEVEL = 1


def image_format(data: bytes) -> str:
    """Return the format of an image of FORMATS, as in its media type: png, jpeg..."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        # Pillow's name for a JPEG that holds several pictures, as many phones take them.
        return "jpeg" if image.format == "MPO" else str(image.format).lower()


def read(field: str, text: str, max_pixels: int, *, mask: bool = False) -> bytes:
    """Return the encoded image that a client sent as base64 or as a data URL.

    Args:
        field: the request's field, for the error text.
        text: base64 or a data URL.
        max_pixels: largest width x height.
        mask: whether the image must also be readable as a mask.

    Raises:
        InvalidInputError: the text is not one whole image of FORMATS within the bounds, or no
            mask if one is needed.
    """
    data = from_base64(field, text)
    try:
        (decode_mask if mask else decode)(data, max_pixels)
    except (ImageRefusedError, MaskError) as error:
        raise _refused(field, error) from None
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
        PNG, RGBA in sRGB, of the upright picture's size. Its alpha is the mask times the picture's
        own.

    Raises:
        InvalidInputError: one is not a whole image of FORMATS within the bounds, or the mask
            is empty.
    """
    try:
        picture = decode(from_base64("image", image), max_pixels)
    except ImageRefusedError as error:
        raise _refused("image", error) from None
    try:
        alpha = Image.fromarray(decode_mask(from_base64("mask", mask), max_pixels))
    except EmptyMaskError as error:
        raise InvalidInputError(str(error)) from None  # the contract's words come first
    except (ImageRefusedError, MaskError) as error:
        raise _refused("mask", error) from None
    cut = Image.fromarray(picture.in_srgb())
    if alpha.size != cut.size:
        alpha = alpha.resize(cut.size, Image.Resampling.NEAREST)
    if picture.alpha is not None:
        # What was see-through stays so.
        alpha = ImageChops.multiply(alpha, Image.fromarray(picture.alpha))
    cut.putalpha(alpha)
    buffer = io.BytesIO()
    cut.save(buffer, "PNG", compress_level=EXTRACT_COMPRESS_LEVEL)
    return tagged_png(buffer.getvalue(), None)


def _base64_bytes(text: str) -> bytes:
    text = text.strip()
    if text[:5].lower() == "data:":
        # At the marker, because a parameter before it may hold a comma in quotes.
        _, marker, text = text.partition(";base64,")
        if not marker:
            raise ValueError("a data URL without ;base64,")
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


def _refused(field: str, error: Exception) -> InvalidInputError:
    if isinstance(error, UndecodableError):
        return _invalid(field, error.reason)
    return InvalidInputError(f"{field}: {error}")


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
            # The profile, if there is one, says what the pixels are in both formats.
            profile = image.info.get("icc_profile")
            image.thumbnail((WEBP_MAX_SIDE, WEBP_MAX_SIDE), Image.Resampling.LANCZOS)
            image.save(
                buffer, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD, icc_profile=profile
            )
    except (OSError, ValueError):
        return png, "image/png"
    return buffer.getvalue(), "image/webp"
