"""Owns the threads that decode and encode images, off the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from frontend.errors import UnavailableError
from frontend.pictures import codecs

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.domain.masks import Picture
    from frontend.settings import Settings

# Cut-outs and pictures for display that wait for the thread that makes them.
MAX_EXPORTS = 16

T = TypeVar("T")


class ImageWorkers:
    """A few threads, so that pictures neither block the event loop nor take all cores.

    Args:
        settings: number of threads and largest picture.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_pixels = settings.max_image_pixels
        self._max_mask_pixels = settings.max_mask_pixels
        self._threads = ThreadPoolExecutor(settings.image_workers, thread_name_prefix="image")
        # Nothing bounds how many ask for these, each takes up to seconds, and nobody's edit or
        # mask depends on them.
        self._export_thread = ThreadPoolExecutor(1, thread_name_prefix="image-export")
        self._exports = 0

    def close(self) -> None:
        """Let the threads end; work that has not begun is dropped."""
        for threads in (self._threads, self._export_thread):
            threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, field: str, text: str) -> bytes:
        """Return the encoded image that a client sent as base64 or as a data URL.

        Raises:
            InvalidInputError: it is not one whole image of FORMATS within the bounds.
        """
        return await self._run(lambda: codecs.read(field, text, self._max_pixels))

    async def digest(self, text: str) -> bytes:
        """Return the SHA-256 of an image's base64: all that it takes to recognise it."""
        return await self._run(lambda: codecs.digest(text))

    async def picture(self, text: str, text_digest: bytes) -> Picture:
        """Return what a client sent as base64 or as a data URL, its pixels unseen.

        Args:
            text: as it was sent.
            text_digest: its `digest`.

        Raises:
            InvalidInputError: not base64.
        """
        return await self._run(lambda: codecs.picture(text, text_digest))

    async def encoded(self, field: str, text: str) -> bytes:
        """As `picture`, for an image that need not be recognised; the error names `field`."""
        return await self._run(lambda: codecs.from_base64(field, text))

    async def extract(self, image: str, mask: str) -> bytes:
        """Cut an object out of a picture.

        Args:
            image: the picture, as base64 or as a data URL.
            mask: white on the object, likewise; stretched to the picture where sizes differ.

        Returns:
            PNG, RGBA, of the upright picture's size, whose alpha is the mask.

        Raises:
            InvalidInputError: one is no whole image of FORMATS within the bounds, or the mask
                is empty.
            UnavailableError: too many wait for this.
        """
        return await self._export(lambda: codecs.extract(image, mask, self._max_mask_pixels))

    async def webp(self, png: bytes) -> tuple[bytes, str]:
        """Encode a PNG for display, its longest side at most WEBP_MAX_SIDE.

        Returns:
            The image and its media type: WebP, or the PNG itself where encoding fails.

        Raises:
            UnavailableError: too many wait for this.
        """
        return await self._export(lambda: codecs.webp(png))

    async def _export(self, work: Callable[[], T]) -> T:
        if self._exports >= MAX_EXPORTS:
            raise UnavailableError("The server is busy with pictures")
        self._exports += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._export_thread, work)
        finally:
            self._exports -= 1

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
