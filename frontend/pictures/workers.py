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

# Maximum number of exports, cut-outs and pictures for display, that wait or run.
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
        # A thread of their own: nothing bounds how many clients ask for exports, each takes up
        # to seconds, and no edit or mask depends on one.
        self._export_thread = ThreadPoolExecutor(1, thread_name_prefix="image-export")
        self._exports = 0

    def close(self) -> None:
        """Let the threads end; work that has not begun is dropped."""
        for threads in (self._threads, self._export_thread):
            threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, field: str, text: str) -> bytes:
        """Run `codecs.read`; an image may have `max_image_pixels`."""
        return await self.run(lambda: codecs.read(field, text, self._max_pixels))

    async def digest(self, text: str) -> bytes:
        """Run `codecs.digest`."""
        return await self.run(lambda: codecs.digest(text))

    async def picture(self, text: str, text_digest: bytes) -> Picture:
        """Run `codecs.picture`."""
        return await self.run(lambda: codecs.picture(text, text_digest))

    async def from_base64(self, field: str, text: str) -> bytes:
        """Run `codecs.from_base64`."""
        return await self.run(lambda: codecs.from_base64(field, text))

    async def extract(self, image: str, mask: str) -> bytes:
        """Export with `codecs.extract`; either image may have `max_mask_pixels`."""
        return await self.export(lambda: codecs.extract(image, mask, self._max_mask_pixels))

    async def webp(self, png: bytes) -> tuple[bytes, str]:
        """Export with `codecs.webp`."""
        return await self.export(lambda: codecs.webp(png))

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; it runs on one of the threads for uploads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def export(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; it runs on the thread for exports.

        Raises:
            UnavailableError: MAX_EXPORTS wait or run already.
        """
        if self._exports >= MAX_EXPORTS:
            raise UnavailableError("The server is busy with pictures")
        self._exports += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._export_thread, work)
        finally:
            self._exports -= 1
