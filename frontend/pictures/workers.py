"""Owns the processes that read strangers' pictures, and how many may wait for one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import structlog

from frontend.domain.masks import Picture
from frontend.errors import IMAGE_REFUSED, ClosingError, InvalidInputError, UnavailableError
from frontend.pictures import codecs
from frontend.shares import Holdings, Turns
from frontend.waiting import set_within
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
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from frontend.settings import Settings

log = structlog.get_logger()

# Requests that wait for a process of a kind, at most; forty clients behind one address are usual.
MAX_WAITING = 128
# Bytes of the pixels that mask requests hold, from which on the next picture has to wait.
MAX_HELD_BYTES = 2**29
# Bytes of an edit's pixels together, at most: as many as image_edit takes, less the other inputs.
MAX_EDIT_BYTES = 190 * 2**20
# Pictures for display that wait or are made, at most.
MAX_DISPLAYS = 16
# Bytes whose digest takes less time than the way to another thread and back.
FEW_BYTES = 2**17
# Characters of base64 from which on reading them would stop all other clients for milliseconds.
MANY_CHARS = 2**20

T = TypeVar("T")


class ImageWorkers:
    """Reads pictures in processes that are killed if they take too long or nobody waits any more.

    Each kind of work has processes and a queue of its own, so that none can stop another. In each
    queue the owners take turns.

    Args:
        settings: number of processes of each kind, largest picture, and what one owner may have.
    """

    def __init__(self, settings: Settings) -> None:
        sandbox = shared(codecs.__name__)
        sandbox.start()
        edit, mask = settings.max_image_pixels, settings.max_mask_pixels

        def pool(workers: int, max_pixels: int, pictures: int = 1) -> _Pool:
            waiting = Holdings("pictures", MAX_WAITING, settings.owner_fraction)
            return _Pool(sandbox, Turns(workers, waiting), max_pixels, pictures)

        self._edits = pool(settings.image_workers, edit)
        self._texts = pool(1, mask)
        # A mask request waits for its rough mask, then for its picture, then for the model, then
        # perhaps for its picture again. Each has a pool of its own, so that none waits in a circle.
        self._rough_masks = _Kept(pool(1, mask), MAX_HELD_BYTES // 2)
        self._pictures = _Kept(pool(settings.image_workers, mask), MAX_HELD_BYTES)
        self._forgotten = _Kept(pool(1, mask), None)
        # Each handles two pictures, and no edit or mask depends on one.
        self._cut_outs = pool(1, mask, pictures=2)
        self._closed = False
        self._threads = ThreadPoolExecutor(settings.image_workers, thread_name_prefix="image")
        self._display_thread = ThreadPoolExecutor(1, thread_name_prefix="image-display")
        displays = Holdings("pictures for display", MAX_DISPLAYS, settings.owner_fraction)
        self._displays = Turns(1, displays)

    def close(self) -> None:
        """Take no more work for the threads; they end once they have done what they have."""
        self._closed = True
        for threads in (self._threads, self._display_thread):
            threads.shutdown(wait=False)

    @contextlib.asynccontextmanager
    async def edit(self, owner: str) -> AsyncIterator[EditPictures]:
        """Read the pictures of one edit, one after the other; only a few edits do so at a time.

        Stay inside until you hold the pixels no more: nothing else bounds how many there are.

        Args:
            owner: whose edit it is.

        Raises:
            UnavailableError: MAX_WAITING wait already.
            TooMuchError: too many of this owner do.
        """
        async with self._edits.turns.place(owner):
            yield EditPictures(self._edits)

    async def file(self, owner: str, field: str, text: str) -> bytes:
        """Return the file that a client sent as base64 or as a data URL, unseen.

        Args:
            owner: who sent it.
            field: what the error text begins with.
            text: base64 or a data URL.

        Raises:
            InvalidInputError: the text is not base64.
            UnavailableError, TooMuchError: as `edit`.
        """
        if len(text) < MANY_CHARS:
            return codecs.file(_bytes(text), field)[0]
        (data,) = await self._texts.run(owner, "file", field, [text], {"field": field})
        return data

    async def upload(self, owner: str, text: str, text_digest: bytes) -> Picture:
        """Return the picture of a mask request, unseen.

        Args:
            owner: who sent it.
            text: base64 or a data URL.
            text_digest: its `digest`.

        Raises:
            InvalidInputError: as `file`, in the contract's words.
            UnavailableError, TooMuchError: as `edit`.
        """
        data = await self.file(owner, IMAGE_REFUSED, text)
        image_id = await self._off_loop(len(data), lambda: hashlib.sha256(data).hexdigest())
        return Picture(data, image_id, text_digest)

    @contextlib.asynccontextmanager
    async def shown(
        self, owner: str, picture: Picture, *, forgotten: bool = False
    ) -> AsyncIterator[bytes]:
        """Hold what is shown of a picture, as plain pixels.

        Those who need the same picture at the same time share one process and one copy.

        Args:
            owner: who asks.
            picture: uploaded.
            forgotten: whether a model had it before: its request has a place at the model already,
                and must not wait for requests that have none yet.

        Raises:
            InvalidInputError: it is no picture within the bounds, or takes too long to decode.
            UnavailableError, TooMuchError: as `edit`.
        """
        kept = self._forgotten if forgotten else self._pictures
        # By owner: nobody waits for, or is refused with, the picture of another.
        key = owner, picture.text_digest
        async with kept.using(owner, key, "shown", IMAGE_REFUSED, picture.data) as pixels:
            yield pixels

    @contextlib.asynccontextmanager
    async def rough_mask(self, owner: str, data: bytes) -> AsyncIterator[bytes]:
        """Hold the rough mask of a mask request, by what it means, as plain pixels.

        Raises:
            InvalidInputError: as `shown`, or it is empty, or can be read in two ways.
            UnavailableError, TooMuchError: as `edit`.
        """
        async with self._rough_masks.using(owner, object(), "rough_mask", "mask", data) as pixels:
            yield pixels

    async def extract(self, owner: str, image: str, mask: str) -> list[bytes]:
        """Run `codecs.extract`; either image may have `max_mask_pixels`.

        Raises:
            InvalidInputError: as there, or it takes too long.
            UnavailableError, TooMuchError: as `edit`.
        """
        options = {"max_pixels": self._cut_outs.max_pixels}
        return await self._cut_outs.run(owner, "extract", "image or mask", [image, mask], options)

    async def digest(self, text: str) -> bytes:
        """Run `codecs.digest`."""
        return await self._off_loop(len(text), lambda: codecs.digest(text))

    async def webp(self, owner: str, read: Callable[[], Awaitable[bytes]]) -> tuple[bytes, str]:
        """Run `codecs.webp`.

        Args:
            owner: who asks.
            read: returns the picture. It is called once it is this one's turn, so that only one
                picture is in memory.

        Raises:
            UnavailableError: MAX_DISPLAYS wait already.
            TooMuchError: too many of this owner do.
        """
        async with self._displays.place(owner):
            picture = await read()
            return await self._in_thread(self._display_thread, lambda: codecs.webp(picture))

    async def _off_loop(self, size: int, work: Callable[[], T]) -> T:
        if size < FEW_BYTES:
            return work()
        return await self._in_thread(self._threads, work)

    async def _in_thread(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._closed:
            raise ClosingError()
        return await asyncio.get_running_loop().run_in_executor(threads, work)


class EditPictures:
    """The pictures of one edit; `ImageWorkers.edit` makes it."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._bytes = 0

    async def picture(self, field: str, text: str) -> bytes:
        """Return a picture as plain pixels.

        Args:
            field: the request's field, for the error text.
            text: base64 or a data URL.

        Raises:
            InvalidInputError: it is no picture within the bounds, or takes too long to decode; or
                the edit's pictures are too large together.
        """
        (pixels,) = await self._read("picture", field, text, {"keep": False})
        return pixels

    async def original(self, field: str, text: str) -> tuple[bytes, bytes]:
        """Return a picture as plain pixels, and the file; see `picture`."""
        pixels, file = await self._read("picture", field, text, {"keep": True})
        return pixels, file

    async def mask(self, field: str, text: str) -> bytes:
        """Return a mask as plain pixels, by what it means; see `picture` and `codecs.mask`."""
        (pixels,) = await self._read("mask", field, text, {})
        return pixels

    async def _read(
        self, function: str, field: str, text: str, more: Mapping[str, bool]
    ) -> list[bytes]:
        options: dict[str, str | int] = {"field": field, "max_pixels": self._pool.max_pixels}
        options |= more
        read = await self._pool.work(function, field, [text], options)
        self._bytes += len(read[0])
        if self._bytes > MAX_EDIT_BYTES:
            raise InvalidInputError(
                f"{field}: with it the edit's pictures take {self._bytes} bytes as plain pixels, "
                f"at most {MAX_EDIT_BYTES} are allowed"
            )
        return read


class _Pool:
    """A few processes at a time, and a bounded queue before them.

    Args:
        sandbox: starts the processes.
        turns: the right to one process each.
        max_pixels: largest width x height of a picture, by which it is judged what takes too long.
        pictures: how many pictures one piece of work reads.
    """

    def __init__(self, sandbox: Sandbox, turns: Turns, max_pixels: int, pictures: int) -> None:
        self._sandbox = sandbox
        self.turns = turns
        self.max_pixels = max_pixels
        self._seconds = seconds_for(max_pixels * pictures)
        self._memory = memory_for(max_pixels * pictures)

    async def run(
        self,
        owner: str,
        function: str,
        field: str,
        files: Sequence[str | bytes],
        options: Mapping[str, str | int],
    ) -> list[bytes]:
        """Wait for a place, and do as `work` does."""
        async with self.turns.place(owner):
            return await self.work(function, field, files, options)

    async def work(
        self,
        function: str,
        field: str,
        files: Sequence[str | bytes],
        options: Mapping[str, str | int],
    ) -> list[bytes]:
        """Have a process run a function of `codecs`. If this is cancelled, the process is killed.

        Args:
            function: its name.
            field: the request's field, for the error text.
            files: the function's first arguments.
            options: its other arguments.

        Raises:
            InvalidInputError: it refused the files, took too long, or crashed.
            UnavailableError: no process can be had.
        """
        contents = [_bytes(file) if isinstance(file, str) else file for file in files]
        try:
            return await self._finished(
                Work(function, contents, options, self._seconds, self._memory)
            )
        except (TooSlowError, CrashedError) as error:
            raise InvalidInputError(f"{field}: {error}") from None
        except RefusedError as error:
            raise InvalidInputError(str(error)) from None
        except SandboxError as error:
            log.exception("decoding_failed", function=function)
            raise UnavailableError("No picture can be decoded now") from error

    async def _finished(self, work: Work) -> list[bytes]:
        with self._sandbox.worker() as worker:
            if not await _readable(worker, START_S):
                raise SandboxError("no process could be started in time")
            worker.begin(work)
            while left := worker.left():
                if await _readable(worker, left):
                    return worker.finish()
            raise TooSlowError(work.seconds)


class _Kept:
    """Pixels that requests hold; those of one picture are read once, and kept while one needs them.

    Args:
        pool: reads them.
        max_bytes: of the pixels that are held, from which on the next picture has to wait; None:
            no bound.
    """

    def __init__(self, pool: _Pool, max_bytes: int | None) -> None:
        self._pool = pool
        self._max_bytes = max_bytes
        # By picture: the reading, and one entry for each request that needs it.
        self._readings: dict[object, tuple[asyncio.Task[bytes], list[None]]] = {}
        self._dropped = asyncio.Event()

    @contextlib.asynccontextmanager
    async def using(
        self, owner: str, key: object, function: str, field: str, data: bytes
    ) -> AsyncIterator[bytes]:
        """Hold the pixels of one picture, the same for all who give the same key."""
        if key not in self._readings:
            self._readings[key] = asyncio.create_task(self._read(owner, function, field, data)), []
        task, users = self._readings[key]
        users.append(None)
        try:
            # Who leaves must not end the reading for the others.
            yield await asyncio.shield(task)
        finally:
            users.pop()
            if not users:
                del self._readings[key]
                task.cancel()
                self._dropped.set()

    async def _read(self, owner: str, function: str, field: str, data: bytes) -> bytes:
        async with self._pool.turns.place(owner):
            while self._max_bytes is not None and self._held_bytes() >= self._max_bytes:
                self._dropped.clear()
                await self._dropped.wait()
            options = {"max_pixels": self._pool.max_pixels}
            (pixels,) = await self._pool.work(function, field, [data], options)
            return pixels

    def _held_bytes(self) -> int:
        done = (task for task, _ in self._readings.values() if task.done())
        return sum(len(task.result()) for task in done if task.exception() is None)


def _bytes(text: str) -> bytes:
    # JSON may hold half a surrogate pair, which is no base64.
    return text.encode(errors="surrogatepass")


async def _readable(worker: Worker, seconds: float) -> bool:
    """Return whether the worker has said something within so many seconds."""
    loop = asyncio.get_running_loop()
    said = asyncio.Event()
    loop.add_reader(worker, said.set)
    try:
        return await set_within(said, seconds)
    finally:
        loop.remove_reader(worker)
