"""Owns the pictures that clients may name by image_id instead of sending them again."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.domain.masks import Picture

# Estimated memory of an entry without its picture.
ENTRY_BYTES = 1024
# Names at most that are kept of pictures, held or not; beyond them the oldest is forgotten.
MAX_NAMES = 4096


@dataclass
class _Entry:
    picture: Picture
    used_at: float


class ImageStore:
    """Pictures in memory; beyond a bound, those unused for the longest time are forgotten.

    Args:
        max_bytes: maximum bytes to hold.
        ttl_s: seconds that a picture is kept after its last use.
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
        self._names: OrderedDict[str, str] = OrderedDict()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, image_id: str) -> Picture | None:
        """Return the picture of that id, or None; this is a use of it."""
        self.expire()
        if (entry := self._entries.get(image_id)) is None:
            return None
        entry.used_at = self._clock()
        self._entries.move_to_end(image_id)
        return entry.picture

    def recognise(self, text_digest: bytes) -> Picture | None:
        """Return the picture that came as this base64, or None; this is a use of it.

        Args:
            text_digest: SHA-256 of the base64.
        """
        image_id = self._ids.get(text_digest)
        return None if image_id is None else self.get(image_id)

    def put(self, picture: Picture) -> None:
        """Hold a picture, unless it alone exceeds the bound; this is a use of it."""
        self._forget(picture.image_id)
        size = _size(picture)
        if size > self._max_bytes:
            return
        while self._size + size > self._max_bytes:
            self._forget(next(iter(self._entries)))
        self._entries[picture.image_id] = _Entry(picture, self._clock())
        self._ids[picture.text_digest] = picture.image_id
        self._size += size

    def model_name(self, image_id: str) -> str | None:
        """Return the name by which a model knows a picture, if one has ever had it."""
        return self._names.get(image_id)

    def name(self, image_id: str, model_name: str) -> None:
        """Remember the name by which models know a picture; it need not be held here."""
        self._names[image_id] = model_name
        self._names.move_to_end(image_id)
        if len(self._names) > MAX_NAMES:
            self._names.popitem(last=False)

    def expire(self) -> None:
        """Forget the pictures that were last used more than ttl_s ago."""
        oldest = self._clock() - self._ttl_s
        while self._entries and next(iter(self._entries.values())).used_at <= oldest:
            self._forget(next(iter(self._entries)))

    def _forget(self, image_id: str) -> None:
        if entry := self._entries.pop(image_id, None):
            del self._ids[entry.picture.text_digest]
            self._size -= _size(entry.picture)


def _size(picture: Picture) -> int:
    return ENTRY_BYTES + len(picture.data)
