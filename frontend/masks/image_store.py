"""Owns one process's cache of the pictures that clients name by image_id."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
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
class _Name:
    text: str
    used_at: float


@dataclass
class _Entry:
    picture: Picture
    used_at: float
    told_at: float


class ImageStore:
    """Pictures in memory, each its owner's: nobody finds those of another.

    Beyond a bound the owner with the most bytes loses the picture that it has not used for the
    longest time.

    Args:
        max_bytes: maximum bytes to hold.
        ttl_s: seconds that a picture and its name are kept after their last use.
        clock: the time in seconds; only differences count.
    """

    def __init__(
        self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        # By owner and image_id, in the order of their last use.
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        # By owner and digest of the text.
        self._ids: dict[tuple[str, bytes], str] = {}
        # By owner and image_id, in the order of their last use.
        self._names: OrderedDict[tuple[str, str], _Name] = OrderedDict()
        self._sizes: Counter[str] = Counter()

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._sizes.total()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, owner: str, image_id: str) -> Picture | None:
        """Return the owner's picture of that id, or None; this is a use of it."""
        self.expire()
        if (entry := self._entries.get((owner, image_id))) is None:
            return None
        entry.used_at = self._clock()
        self._entries.move_to_end((owner, image_id))
        return entry.picture

    def recognise(self, owner: str, text_digest: bytes) -> Picture | None:
        """Return the picture that came as this base64, or None; this is a use of it.

        Args:
            owner: who has sent it.
            text_digest: SHA-256 of the base64.
        """
        image_id = self._ids.get((owner, text_digest))
        return None if image_id is None else self.get(owner, image_id)

    def due(self, owner: str, image_id: str, every_s: float) -> bool:
        """Return whether a use should be told to the store of all processes: again, or at all."""
        entry = self._entries.get((owner, image_id))
        return entry is None or self._clock() - entry.told_at >= every_s

    def note_told(self, owner: str, image_id: str) -> None:
        """Remember that the store of all processes was told of a use just now."""
        if entry := self._entries.get((owner, image_id)):
            entry.told_at = self._clock()

    def put(self, owner: str, picture: Picture) -> None:
        """Hold a picture, unless it alone exceeds the bound; this is a use of it.

        A new one is in the store of all processes since just now.
        """
        before = self._entries.get((owner, picture.image_id))
        self._forget((owner, picture.image_id))
        size = _size(picture)
        if size > self._max_bytes:
            return
        while self.size + size > self._max_bytes:
            # As if this one were there already.
            largest = max(self._sizes, key=lambda each: self._sizes[each] + size * (each == owner))
            self._forget(next(key for key in self._entries if key[0] == largest))
        now = self._clock()
        told_at = before.told_at if before else now
        self._entries[owner, picture.image_id] = _Entry(picture, now, told_at)
        self._ids[owner, picture.text_digest] = picture.image_id
        self._sizes[owner] += size

    def model_name(self, owner: str, image_id: str) -> str | None:
        """Return the name by which a model may know an owner's picture; this is a use of it.

        None: no model has ever had it from this owner, or it was not used for too long.
        """
        self.expire()
        if (name := self._names.get((owner, image_id))) is None:
            return None
        self.name(owner, image_id, name.text)
        return name.text

    def name(self, owner: str, image_id: str, model_name: str) -> None:
        """Remember the name by which models know a picture; it need not be held here."""
        self._names[owner, image_id] = _Name(model_name, self._clock())
        self._names.move_to_end((owner, image_id))
        if len(self._names) > MAX_NAMES:
            self._names.popitem(last=False)

    def expire(self) -> None:
        """Forget the pictures, and the names, that were last used more than ttl_s ago."""
        oldest = self._clock() - self._ttl_s
        while self._entries and next(iter(self._entries.values())).used_at <= oldest:
            self._forget(next(iter(self._entries)))
        while self._names and next(iter(self._names.values())).used_at <= oldest:
            self._names.popitem(last=False)

    def _forget(self, key: tuple[str, str]) -> None:
        if entry := self._entries.pop(key, None):
            owner, _ = key
            del self._ids[owner, entry.picture.text_digest]
            self._sizes[owner] -= _size(entry.picture)
            if not self._sizes[owner]:
                del self._sizes[owner]


def _size(picture: Picture) -> int:
    return ENTRY_BYTES + len(picture.data)
