"""Owns the pictures that clients may name by image_id instead of sending them again."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.domain.masks import Picture

# What an entry takes beside its picture.
ENTRY_BYTES = 1024


@dataclass
class _Entry:
    picture: Picture
    used_at: float


class ImageStore:
    """Pictures in memory; beyond a bound, those unused for longest are forgotten.

    Args:
        max_bytes: bound on what it holds.
        ttl_s: how long a picture is kept after its last use.
        clock: the time in seconds; only differences count.
    """

    def __init__(
        self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        # By image_id, in the order of their last use.
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._ids: dict[bytes, str] = {}
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, image_id: str) -> Picture | None:
        """Return the picture of that id, if it is held; counts as a use of it."""
        self.expire()
        if (entry := self._entries.get(image_id)) is None:
            return None
        entry.used_at = self._clock()
        self._entries.move_to_end(image_id)
        return entry.picture

    def recognise(self, text_digest: bytes) -> Picture | None:
        """Return the picture that came as that very text, if it is held; counts as a use of it."""
        image_id = self._ids.get(text_digest)
        return None if image_id is None else self.get(image_id)

    def put(self, picture: Picture) -> None:
        """Hold a picture, unless it alone is beyond the bound; counts as a use of it."""
        self._forget(picture.image_id)
        size = _size(picture)
        if size > self._max_bytes:
            return
        while self._size + size > self._max_bytes:
            self._forget(next(iter(self._entries)))
        self._entries[picture.image_id] = _Entry(picture, self._clock())
        self._ids[picture.text_digest] = picture.image_id
        self._size += size

    def expire(self) -> None:
        """Forget what has not been used for too long."""
        oldest = self._clock() - self._ttl_s
        while self._entries and next(iter(self._entries.values())).used_at <= oldest:
            self._forget(next(iter(self._entries)))

    def _forget(self, image_id: str) -> None:
        if entry := self._entries.pop(image_id, None):
            del self._ids[entry.picture.text_digest]
            self._size -= _size(entry.picture)


def _size(picture: Picture) -> int:
    return ENTRY_BYTES + len(picture.data)
