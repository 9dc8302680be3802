"""Owns the features of the pictures seen lately, bounded in bytes and in time."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass

from smart_mask.errors import Code, MaskError
from smart_mask.features import Features

# How often one who waits for another's features looks whether it was cancelled, in seconds.
_POLL_S = 0.02


@dataclass
class CacheCounts:
    """What has happened to a cache, and what it holds."""

    images: int = 0
    bytes: int = 0
    max_bytes: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    expirations: int = 0


class FeatureCache:
    """Features by image id: the least recently used go first, and all go some time after use.

    Of requests for the same new image at once, one computes and the others wait for it.
    """

    def __init__(
        self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Makes an empty cache.

        Args:
            max_bytes: bound on what it holds; features larger than it are not kept.
            ttl_s: how long features are kept after their last use.
            clock: the time in seconds; only differences count.
        """
        self._ttl_s = ttl_s
        self._clock = clock
        # Guards all below.
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[Features, float]] = OrderedDict()
        self._computing: dict[str, Future[Features]] = {}
        self._counts = CacheCounts(max_bytes=max_bytes)

    def counts(self) -> dict[str, int]:
        """CacheCounts by name, as of now."""
        with self._lock:
            self._expire()
            return asdict(self._counts)

    def find(self, image_id: str) -> Features | None:
        """The features of an image, if they are kept; counts as a use of them."""
        with self._lock:
            return self._find(image_id)

    def find_or_compute(
        self, image_id: str, compute: Callable[[], Features], check: Callable[[], None]
    ) -> tuple[Features, bool]:
        """The features of an image, computed once however many ask at the same time.

        Args:
            image_id: of the image.
            compute: makes them; what it raises, all who wait for it get too, except that one
                of them takes over where the request that computed was cancelled.
            check: called while waiting for another's; whatever it raises ends the wait.

        Returns:
            The features, and whether this call did without computing them.
        """
        while True:
            with self._lock:
                if (known := self._find(image_id)) is not None:
                    return known, True
                if (pending := self._computing.get(image_id)) is None:
                    mine = self._computing[image_id] = Future()
                    self._counts.misses += 1
                    break
                self._counts.hits += 1
            try:
                return _wait(pending, check), True
            except MaskError as error:
                if error.code is not Code.CANCELLED or not _failed_with(pending, error):
                    raise
        try:
            features = compute()
        except BaseException as error:
            with self._lock:
                del self._computing[image_id]
            mine.set_exception(error)
            raise
        with self._lock:
            self._keep(image_id, features)
            del self._computing[image_id]
        mine.set_result(features)
        return features, False

    # The lock is held wherever what follows is called.

    def _find(self, image_id: str) -> Features | None:
        self._expire()
        if (entry := self._entries.get(image_id)) is None:
            return None
        self._counts.hits += 1
        self._entries[image_id] = entry[0], self._clock()
        self._entries.move_to_end(image_id)
        return entry[0]

    def _keep(self, image_id: str, features: Features) -> None:
        if features.nbytes > self._counts.max_bytes:
            return
        while self._counts.bytes + features.nbytes > self._counts.max_bytes:
            self._drop_oldest()
            self._counts.evictions += 1
        self._entries[image_id] = features, self._clock()
        self._counts.images += 1
        self._counts.bytes += features.nbytes

    def _expire(self) -> None:
        """Drops what was not used for too long: the entries lie in the order of their last use."""
        while self._entries:
            _, used_at = next(iter(self._entries.values()))
            if self._clock() - used_at <= self._ttl_s:
                return
            self._drop_oldest()
            self._counts.expirations += 1

    def _drop_oldest(self) -> None:
        _, (features, _) = self._entries.popitem(last=False)
        self._counts.images -= 1
        self._counts.bytes -= features.nbytes


def _wait(pending: "Future[Features]", check: Callable[[], None]) -> Features:
    while not pending.done():
        check()
        wait([pending], timeout=_POLL_S)
    return pending.result()


def _failed_with(pending: "Future[Features]", error: Exception) -> bool:
    return pending.done() and pending.exception() is error
