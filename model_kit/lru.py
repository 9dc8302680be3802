"""Owns a cache of computed values, bounded in bytes and in time."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar


class Sized(Protocol):
    """A value that knows its size."""

    @property
    def nbytes(self) -> int:
        """Return the bytes that it holds."""


Value = TypeVar("Value", bound=Sized)


@dataclass
class Counts:
    """What has happened to a cache, and what it holds."""

    entries: int = 0
    bytes: int = 0
    max_bytes: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    """Values dropped because others needed the room."""
    expirations: int = 0
    """Values dropped because nobody used them for too long."""


class PendingError(Exception):
    """Another request computes the value just now.

    Ask again once `ends` is done: it has the value, or the error that the other one met.
    """

    def __init__(self, ends: Future[Any]) -> None:
        super().__init__("another request computes it")
        self.ends = ends


class Lru(Generic[Value]):
    """Keeps values by key and drops the least recently used first, or any that is too old.

    If several requests ask for the same new key at once, one computes. The others are told so at
    once: they must not hold a thread each while they wait.
    """

    def __init__(
        self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make an empty cache.

        Args:
            max_bytes: bound on the sum of all values; a larger value is not kept.
            ttl_s: seconds that a value is kept after its last use.
            clock: the time in seconds; only differences count.
        """
        self._ttl_s = ttl_s
        self._clock = clock
        # Guards all below.
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[Value, float]] = OrderedDict()
        self._computing: dict[str, Future[Value]] = {}
        self._counts = Counts(max_bytes=max_bytes)

    def counts(self) -> Counts:
        """Return the counts as of now."""
        with self._lock:
            self._expire()
            return replace(self._counts)

    def find(self, key: str) -> Value | None:
        """Return the value of a key, if it is kept; this counts as a use."""
        with self._lock:
            return self._find(key)

    def find_or_compute(self, key: str, compute: Callable[[], Value]) -> tuple[Value, bool]:
        """Return the value of a key. It is computed once, however many ask at the same time.

        Args:
            key: of the value.
            compute: computes it.

        Returns:
            The value, and whether this call did without computing it.

        Raises:
            PendingError: another request computes it just now.
        """
        with self._lock:
            if (known := self._find(key)) is not None:
                return known, True
            if (pending := self._computing.get(key)) is not None:
                raise PendingError(pending)
            mine = self._computing[key] = Future()
            self._counts.misses += 1
        try:
            value = compute()
        except BaseException as error:
            with self._lock:
                del self._computing[key]
            mine.set_exception(error)
            raise
        with self._lock:
            self._keep(key, value)
            del self._computing[key]
        mine.set_result(value)
        return value, False

    # The caller of each method below holds the lock.

    def _find(self, key: str) -> Value | None:
        self._expire()
        if (entry := self._entries.get(key)) is None:
            return None
        self._counts.hits += 1
        self._entries[key] = entry[0], self._clock()
        self._entries.move_to_end(key)
        return entry[0]

    def _keep(self, key: str, value: Value) -> None:
        if value.nbytes > self._counts.max_bytes:
            return
        while self._counts.bytes + value.nbytes > self._counts.max_bytes:
            self._drop_oldest()
            self._counts.evictions += 1
        self._entries[key] = value, self._clock()
        self._counts.entries += 1
        self._counts.bytes += value.nbytes

    def _expire(self) -> None:
        """Drop what was not used for too long; the entries lie in the order of their last use."""
        while self._entries:
            _, used_at = next(iter(self._entries.values()))
            if self._clock() - used_at <= self._ttl_s:
                return
            self._drop_oldest()
            self._counts.expirations += 1

    def _drop_oldest(self) -> None:
        _, (value, _) = self._entries.popitem(last=False)
        self._counts.entries -= 1
        self._counts.bytes -= value.nbytes
