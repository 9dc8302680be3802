"""Owns decoding and encoding of images, bounded and off the event loop."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from PIL import Image, UnidentifiedImageError

from frontend.errors import InvalidInputError
from frontend.image_bounds import FORMATS, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.settings import Settings

WEBP_MAX_SIDE = 2560
WEBP_QUALITY = 80
WEBP_METHOD = 6

# Pillow's own limit warns instead of refusing; ImageWorkers checks the size of every image.
Image.MAX_IMAGE_PIXELS = None

T = TypeVar("T")


class ImageWorkers:
    """A few threads, so that pictures neither block the event loop nor take all cores.

    Args:
        settings: number of threads and largest picture.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_pixels = settings.max_image_pixels
        self._threads = ThreadPoolExecutor(settings.image_workers, thread_name_prefix="image")

    def close(self) -> None:
        """Let the threads end; work that has not begun is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, field: str, text: str) -> bytes:
        """Return the encoded image that a client sent as base64 or as a data URL.

        Raises:
            InvalidInputError: it is not one whole image of FORMATS within the bounds.
        """
        return await self._run(lambda: _read(field, text, self._max_pixels))

    async def webp(self, png: bytes) -> tuple[bytes, str]:
        """Encode a PNG for display, its longest side at most WEBP_MAX_SIDE.

        Returns:
            The image and its media type: WebP, or the PNG itself where encoding fails.
        """
        return await self._run(lambda: _webp(png))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def image_format(data: bytes) -> str:
    """Return the format of an image of FORMATS, as in its media type: png, jpeg..."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return str(image.format).lower()


def _read(field: str, text: str, max_pixels: int) -> bytes:
    if text.startswith("data:"):
        _, _, text = text.partition(",")
    try:
        # Some encoders break lines; everything else outside the alphabet is an error.
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid(field, f"not base64 ({error})") from None
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if reason := refusal(image, data, max_pixels):
                raise InvalidInputError(f"{field}: {reason}")
            # Only decoding all of it shows a truncated file.
            image.load()
    except InvalidInputError:
        raise
    except UnidentifiedImageError:
        raise _invalid(field, f"not one of {', '.join(FORMATS)}") from None
    # Pillow's decoders raise almost anything at a broken file.
    except Exception as error:
        raise _invalid(field, f"damaged ({error})") from None
    return data


def _invalid(field: str, reason: str) -> InvalidInputError:
    return InvalidInputError(
        f"{field}: Invalid base64 image data or unsupported format: {reason[:200]}"
    )


def _webp(png: bytes) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            image.thumbnail((WEBP_MAX_SIDE, WEBP_MAX_SIDE), Image.Resampling.LANCZOS)
            image.save(buffer, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
    except (OSError, ValueError):
        return png, "image/png"
    return buffer.getvalue(), "image/webp"
