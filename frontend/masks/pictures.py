"""Owns the pictures that clients name by image_id: in the store, with a cache in front of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self

import structlog

from frontend.errors import ServingError, UnavailableError
from frontend.supervision import Rounds, supervised_task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from frontend.domain.masks import Picture
    from frontend.jobs.sql_pictures import SqlPictures
    from frontend.masks.image_store import ImageStore

log = structlog.get_logger()

SWEEP_S = 10.0


class Pictures:
    """Finds a picture in the cache or else in the store, and keeps new ones in both.

    What the cache has is found while the store is away.

    An asynchronous context manager: the store is swept inside it.

    Args:
        cache: of this process.
        store: of all processes.
    """

    def __init__(self, cache: ImageStore, store: SqlPictures) -> None:
        self._cache = cache
        self._store = store
        # By owner and image_id: uses that the store is being told of, and readings.
        self._telling: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._finding: dict[tuple[str, str], asyncio.Task[Picture | None]] = {}
        self._dropping: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._sweeper = supervised_task("pictures", self._sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sweeper.cancel()
        left = [*self._telling.values(), *self._finding.values(), *self._dropping]
        await asyncio.gather(self._sweeper, *left, return_exceptions=True)

    def cached(self, owner: str, image_id: str) -> Picture | None:
        """Return the owner's picture if the cache has it; this is a use of it, wherever it is."""
        if picture := self._cache.get(owner, image_id):
            self.use(owner, image_id, picture)
        return picture

    def use(self, owner: str, image_id: str, picture: Picture | None = None) -> None:
        """Have the store hear of a use, unless it did lately; nobody waits for that.

        Args:
            owner: whose picture it is.
            image_id: the picture's.
            picture: the picture, if the cache has it; the store gets it again if it has none.
        """
        key = owner, image_id
        if key not in self._telling and self._cache.due(*key, self._store.note_s):
            telling = asyncio.create_task(self._tell(owner, image_id, picture))
            self._telling[key] = telling
            telling.add_done_callback(lambda _: self._telling.pop(key))

    async def find(self, owner: str, image_id: str) -> Picture | None:
        """Return the owner's picture of that id, or None; this is a use of it.

        Raises:
            StoreAwayError: the cache has none, and the store cannot be asked.
        """
        if picture := self._cache.get(owner, image_id):
            return picture
        # One reading for all, so that what is in memory has the store's bound.
        key = owner, image_id
        if (finding := self._finding.get(key)) is None:
            finding = self._finding[key] = asyncio.create_task(self._read(owner, image_id))
            finding.add_done_callback(lambda _: self._finding.pop(key))
        return await asyncio.shield(finding)

    @contextlib.asynccontextmanager
    async def writing(
        self, owner: str, picture: Picture
    ) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Write a picture to the store while the context lasts.

        Yields:
            What keeps it, once it is accepted; without that it is dropped. It raises
            UnavailableError if the store is away, or its disk nearly full.
        """
        writing = asyncio.create_task(self._write(owner, picture))
        accepted = False

        async def accept() -> None:
            nonlocal accepted
            blob = await asyncio.shield(writing)
            accepted = True
            if blob is not None:
                await self._store.add(owner, picture, blob)
            self._cache.put(owner, picture)

        try:
            yield accept
        finally:
            if not accepted:
                self._in_background(self._drop(writing))

    async def _read(self, owner: str, image_id: str) -> Picture | None:
        if picture := await self._store.get(owner, image_id):
            self._cache.put(owner, picture)
        return picture

    async def _write(self, owner: str, picture: Picture) -> str | None:
        """Return the name of what was written; None if the picture is kept already."""
        if self._cache.get(owner, picture.image_id):
            return None
        if await self._store.use(owner, picture.image_id):
            return None
        return await self._store.write(picture)

    async def _tell(self, owner: str, image_id: str, picture: Picture | None) -> None:
        """Tell the store of a use; if it had to forget the picture, it gets it again."""
        try:
            if not await self._store.use(owner, image_id) and picture:
                await self._store.add(owner, picture, await self._store.write(picture))
            self._cache.note_told(owner, image_id)
        except UnavailableError as error:
            log.warning("picture_not_kept", reason=error.detail)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def _drop(self, writing: asyncio.Task[str | None]) -> None:
        with contextlib.suppress(ServingError):
            if (blob := await writing) is not None:
                await self._store.drop(blob)

    async def _sweep(self) -> None:
        rounds = Rounds("pictures")
        while True:
            with rounds.one():
                try:
                    await self._store.sweep()
                except UnavailableError as error:
                    log.warning("store_away", reason=error.detail)
            await asyncio.sleep(SWEEP_S)
