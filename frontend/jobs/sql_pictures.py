"""Owns the pictures of mask requests in a SQL database, so that any process has them."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING

from frontend.domain.masks import Picture
from frontend.errors import ServingError
from frontend.jobs.blobs import PART_BYTES, check_disk, parts
from frontend.jobs.statements import row, rows
from frontend.jobs.sweeping import Orphans, Piece, sweep
from frontend.jobs.transactions import FORGET_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frontend.jobs.driver import Driver
    from frontend.jobs.statements import Row, Steps

PICTURE_BYTES = 4096
"""Estimated size of a picture in the database without its data."""


class SqlPictures:
    """Pictures over a driver, each its owner's: nobody finds those of another.

    Beyond the bound the owner with the most bytes loses the picture that it has not used for the
    longest time. Every method raises StoreAwayError while the database cannot be reached.

    Args:
        driver: the database.
        max_bytes: of all pictures; one that alone exceeds it is not kept.
        ttl_s: seconds that a picture is kept after its last use, and a tenth more at most: uses
            are noted only that often.
    """

    def __init__(self, driver: Driver, max_bytes: int, ttl_s: float) -> None:
        self._driver = driver
        self._max_bytes = max_bytes
        self.note_s = ttl_s / 10
        """A use is noted again only after so many seconds."""
        self._kept_s = ttl_s + self.note_s
        self._orphans = Orphans(driver, "old_picture_parts")

    async def use(self, owner: str, image_id: str) -> bool:
        """Note a use of a picture; return whether it is there."""
        found = await self._driver.read(self._row(owner, image_id))
        if found is None or not found["due"]:
            return found is not None
        return await asyncio.shield(self._driver.write(_use(owner, image_id)))

    async def get(self, owner: str, image_id: str) -> Picture | None:
        """Return the owner's picture of that id, or None; this is a use of it."""
        if (found := await self._driver.read(self._row(owner, image_id))) is None:
            return None
        size, data = found["bytes"] - PICTURE_BYTES, bytearray()
        # One by one: a reader of all would hold up every other one.
        for part in range(-(-size // PART_BYTES)):
            read = await self._driver.read(row("picture_part", found["blob"], part))
            if read is None:  # it had to go meanwhile
                return None
            data += read["data"]
        if found["due"]:
            await asyncio.shield(self._driver.write(_use(owner, image_id)))
        return Picture(bytes(data), image_id, bytes(found["text_digest"]))

    async def write(self, picture: Picture) -> str:
        """Write a picture's data; return the name by which `add` or `drop` takes it.

        What neither takes is swept after ten minutes.

        Raises:
            UnavailableError: the disk is nearly full.
        """
        blob = uuid.uuid4().hex
        if self._fits(picture):
            await check_disk(self._driver, len(picture.data))
            for part, piece in parts(picture.data):
                await self._driver.write_part(rows("put_picture_part", blob, part, piece))
        return blob

    async def add(self, owner: str, picture: Picture, blob: str) -> None:
        """Let a picture be its owner's, unless it is already; this is a use of it.

        Args:
            owner: whose it is.
            picture: the same as in `write`.
            blob: what `write` returned.
        """
        if self._fits(picture):
            added = False
            while not added:
                steps = _add(owner, picture, blob, self._max_bytes)
                added = await asyncio.shield(self._driver.write(steps))

    async def drop(self, blob: str) -> None:
        """Delete what was written for a picture that is not to be kept."""
        with contextlib.suppress(ServingError):
            await self._driver.write_part(rows("delete_picture_parts", blob))

    async def sweep(self) -> None:
        """Forget what has expired, and what was written for pictures that never came."""
        expired_gone = await sweep(self._forget_expired)
        orphans_gone = await sweep(self._forget_orphans)
        await self._driver.shrink(freed=expired_gone or orphans_gone)

    async def _forget_expired(self) -> Piece:
        found = await self._driver.read(rows("expired_pictures", self._kept_s, FORGET_AT_ONCE))
        if found:
            await self._driver.write(_forget(found))
        return Piece(bool(found), len(found) == FORGET_AT_ONCE)

    async def _forget_orphans(self) -> Piece:
        lost, more = await self._orphans.look()
        if lost:
            await self._driver.write(_delete_parts(lost))
        return Piece(bool(lost), more)

    def _row(self, owner: str, image_id: str) -> Steps[Row | None]:
        return row("picture", owner, image_id, self.note_s, self._kept_s)

    def _fits(self, picture: Picture) -> bool:
        return _size(picture) <= self._max_bytes


def _size(picture: Picture) -> int:
    return PICTURE_BYTES + len(picture.data)


def _use(owner: str, image_id: str) -> Steps[bool]:
    yield from rows("lock")  # a sweep may be about to delete it
    return (yield from row("use_picture", owner, image_id)) is not None


def _add(owner: str, picture: Picture, blob: str, max_bytes: int) -> Steps[bool]:
    """Add a picture; return False if more than a few others have to go first: then begin anew."""
    if (yield from _use(owner, picture.image_id)):
        yield from _delete_parts([blob])
        return True
    size = _size(picture)
    for _ in range(FORGET_AT_ONCE):
        held = yield from row("picture_bytes")
        assert held is not None
        if held["bytes"] + size <= max_bytes:
            break
        largest = yield from row("owner_of_most_pictures", owner, size)
        assert largest is not None, "somebody's pictures hold bytes"
        oldest = yield from row("oldest_picture_of", largest["owner"])
        assert oldest is not None, "it has pictures"
        yield from _delete(largest["owner"], oldest["image_id"])
    else:
        return False
    yield from rows("add_picture", owner, picture.image_id, picture.text_digest, blob, size)
    yield from rows("count_picture", owner, size)
    return True


def _forget(expired: Sequence[Row]) -> Steps[None]:
    yield from rows("lock")
    for each in expired:
        yield from _delete(each["owner"], each["image_id"])


def _delete(owner: str, image_id: str) -> Steps[None]:
    if (found := (yield from row("delete_picture", owner, image_id))) is not None:
        yield from _delete_parts([found["blob"]])
        yield from rows("count_picture", owner, -found["bytes"])
        yield from rows("forget_owner_of_pictures", owner)


def _delete_parts(blobs: Sequence[str]) -> Steps[None]:
    for blob in blobs:
        yield from rows("delete_picture_parts", blob)
