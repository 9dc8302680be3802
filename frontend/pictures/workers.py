"""Owns the processes that read strangers' pictures, and how many may wait for one."""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from frontend.domain.masks import Picture
from frontend.errors import IMAGE_REFUSED, InvalidInputError, UnavailableError
from frontend.pictures import codecs
from model_kit.pictures import memory_for, seconds_for
from model_kit.sandbox import (
    START_S,
    CrashedError,
    RefusedError,
    Sandbox,
    SandboxError,
    TooSlowError,
    Work,
    Worker,
    shared,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from frontend.settings import Settings

# Pictures of a kind that wait for a process, at most; forty clients at once are usual in tests.
MAX_WAITING = 64
# Pictures for display that wait or are made, at most.
MAX_DISPLAYS = 16
# Bytes whose digest takes less time than the way to another thread and back.
FEW_BYTES = 2**17

K = TypeVar("K")
T = TypeVar("T")


class ImageWorkers:
    """Reads pictures in processes that are killed if they take too long or nobody waits any more.

    Each kind of work has processes and a queue of its own, so that none can stop another.

    Args:
        settings: number of processes of each kind, and largest picture.
    """

    def __init__(self, settings: Settings) -> None:
        sandbox = shared(codecs.__name__)
        sandbox.start()
        edit, mask = settings.max_image_pixels, settings.max_mask_pixels
        self._edits = _Pool(sandbox, settings.image_workers, edit)
        self._masks = _Pool(sandbox, settings.image_workers, mask)
        # Each handles two pictures, and no edit or mask depends on one.
        self._cut_outs = _Pool(sandbox, 1, mask, pictures=2)
        self._uploads: _Shared[bytes, tuple[Picture, bytes]] = _Shared()
        self._threads = ThreadPoolExecutor(settings.image_workers, thread_name_prefix="image")
        self._display_thread = ThreadPoolExecutor(1, thread_name_prefix="image-display")
        self._displays = 0

    def close(self) -> None:
        """Let the threads end; work that has not begun is dropped."""
        for threads in (self._threads, self._display_thread):
            threads.shutdown(wait=False, cancel_futures=True)

    async def picture(self, field: str, text: str) -> bytes:
        """Return a picture of an edit as plain pixels; see `codecs.picture`.

        Args:
            field: the request's field, for the error text.
            text: base64 or a data URL.

        Raises:
            InvalidInputError: it is no picture within the bounds, or takes too long to decode.
            UnavailableError: too many wait already.
        """
        (pixels,) = await self._edits.run("picture", field, [text], {"field": field, "keep": False})
        return pixels

    async def original(self, field: str, text: str) -> tuple[bytes, bytes]:
        """Return a picture of an edit as plain pixels, and the file; see `picture`."""
        pixels, file = await self._edits.run(
            "picture", field, [text], {"field": field, "keep": True}
        )
        return pixels, file

    async def mask(self, field: str, text: str) -> bytes:
        """Return a mask of an edit as plain pixels; see `picture` and `codecs.mask`."""
        (pixels,) = await self._edits.run("mask", field, [text], {"field": field})
        return pixels

    async def rough_mask(self, text: str) -> bytes:
        """Return the `mask` of a mask request as plain pixels; see `picture` and `codecs.mask`."""
        (pixels,) = await self._masks.run("mask", "mask", [text], {"field": "mask"})
        return pixels

    async def upload(self, text: str, text_digest: bytes) -> tuple[Picture, bytes]:
        """Return the picture of a mask request, and what is shown of it as plain pixels.

        Requests with the same picture at the same time share one process.

        Args:
            text: base64 or a data URL.
            text_digest: its `digest`.

        Raises:
            InvalidInputError: as `picture`.
            UnavailableError: as `picture`.
        """

        async def read() -> tuple[Picture, bytes]:
            pixels, file = await self._masks.run("upload", IMAGE_REFUSED, [text])
            image_id = await self._off_loop(len(file), lambda: hashlib.sha256(file).hexdigest())
            return Picture(file, image_id, text_digest), pixels

        return await self._uploads.run(text_digest, read)

    async def shown(self, picture: Picture) -> bytes:
        """Return what is shown of an uploaded picture as plain pixels, once more."""

        async def read() -> tuple[Picture, bytes]:
            (pixels,) = await self._masks.run("shown", IMAGE_REFUSED, [picture.data])
            return picture, pixels

        return (await self._uploads.run(picture.text_digest, read))[1]

    async def extract(self, image: str, mask: str) -> bytes:
        """Run `codecs.extract`; either image may have `max_mask_pixels`.

        Raises:
            InvalidInputError: as there, or it takes too long.
            UnavailableError: too many wait already.
        """
        (png,) = await self._cut_outs.run("extract", "image or mask", [image, mask])
        return png

    async def digest(self, text: str) -> bytes:
        """Run `codecs.digest`."""
        return await self._off_loop(len(text), lambda: codecs.digest(text))

    async def webp(self, png: bytes) -> tuple[bytes, str]:
        """Run `codecs.webp`.

        Raises:
            UnavailableError: MAX_DISPLAYS wait or are made already.
        """
        if self._displays >= MAX_DISPLAYS:
            raise _busy()
        self._displays += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._display_thread, codecs.webp, png)
        finally:
            self._displays -= 1

    async def _off_loop(self, size: int, work: Callable[[], T]) -> T:
        if size < FEW_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class _Pool:
    """A few processes at a time, and a bounded queue before them.

    Args:
        sandbox: starts the processes.
        workers: how many run at the same time.
        max_pixels: largest width x height of a picture.
        pictures: how many pictures one piece of work reads.
    """

    def __init__(
        self, sandbox: Sandbox, workers: int, max_pixels: int, *, pictures: int = 1
    ) -> None:
        self._sandbox = sandbox
        self._max_pixels = max_pixels
        self._seconds = seconds_for(max_pixels * pictures)
        self._memory = memory_for(max_pixels * pictures)
        self._free = asyncio.Semaphore(workers)
        self._waiting = 0

    async def run(
        self,
        function: str,
        field: str,
        files: Sequence[str | bytes],
        options: Mapping[str, str | bool] | None = None,
    ) -> list[bytes]:
        """Have a process run a function of `codecs`. If this is cancelled, the process is killed.

        Args:
            function: its name.
            field: the request's field, for the error text.
            files: the function's first arguments.
            options: its others, beside `max_pixels`.

        Raises:
            InvalidInputError: it refused the files, took too long, or crashed.
            UnavailableError: MAX_WAITING wait already, or no process can be had.
        """
        if self._waiting >= MAX_WAITING:
            raise _busy()
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            # JSON may hold half a surrogate pair, which is no base64.
            contents = [
                file if isinstance(file, bytes) else file.encode(errors="surrogatepass")
                for file in files
            ]
            return await self._run(
                Work(
                    function,
                    contents,
                    {"max_pixels": self._max_pixels, **(options or {})},
                    self._seconds,
                    self._memory,
                )
            )
        except (TooSlowError, CrashedError) as error:
            raise InvalidInputError(f"{field}: {error}") from None
        except RefusedError as error:
            raise InvalidInputError(str(error)) from None
        except SandboxError as error:
            raise UnavailableError("No picture can be decoded now") from error
        finally:
            self._free.release()

    async def _run(self, work: Work) -> list[bytes]:
        with self._sandbox.worker() as worker:
            if not await _readable(worker, START_S):
                raise SandboxError("no process could be started in time")
            worker.begin(work)
            if not await _readable(worker, work.seconds):
                raise TooSlowError(work.seconds)
            return worker.finish()


class _Shared(Generic[K, T]):
    """Work that several ask for at the same time is done once, for as long as one of them waits."""

    def __init__(self) -> None:
        # With each the number of those who wait for it.
        self._running: dict[K, tuple[asyncio.Task[T], list[None]]] = {}

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `work` returns, or what the work of that key that runs already does."""
        if key not in self._running:
            self._running[key] = asyncio.create_task(work()), []
        task, waiting = self._running[key]
        waiting.append(None)
        try:
            return await asyncio.shield(task)
        finally:
            waiting.pop()
            if not waiting:
                del self._running[key]
                task.cancel()


async def _readable(worker: Worker, seconds: float) -> bool:
    """Return whether the worker has said something within so many seconds."""
    loop = asyncio.get_running_loop()
    said = asyncio.Event()
    loop.add_reader(worker, said.set)
    try:
        async with asyncio.timeout(seconds):
            await said.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(worker)
    return True


def _busy() -> UnavailableError:
    return UnavailableError("The server is busy with pictures")
