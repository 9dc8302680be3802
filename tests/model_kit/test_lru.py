from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import pytest

from model_kit.errors import Code, CodedError
from model_kit.lru import Lru

SIZE = 1000


@dataclass(frozen=True, eq=False)
class Value:
    nbytes: int = SIZE


ENTRY = Value()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def never() -> Value:
    raise AssertionError("it was to be found")


def no_check() -> None:
    pass


def fill(cache: Lru[Value], *ids: str) -> None:
    for key in ids:
        cache.find_or_compute(key, Value, no_check)


def test_what_was_computed_is_found() -> None:
    cache = Lru[Value](10 * SIZE, ttl_s=60)
    first, was_known = cache.find_or_compute("a", lambda: ENTRY, no_check)
    assert (first, was_known) == (ENTRY, False)
    assert cache.find_or_compute("a", never, no_check) == (ENTRY, True)
    assert cache.find("a") is ENTRY
    assert cache.find("b") is None


def test_the_least_recently_used_go_first() -> None:
    cache = Lru[Value](3 * SIZE, ttl_s=60)
    fill(cache, "a", "b", "c")
    assert cache.find("a")
    fill(cache, "d")
    assert [bool(cache.find(key)) for key in "abcd"] == [True, False, True, True]


def test_a_hundred_values_go_through_a_cache_that_holds_five() -> None:
    cache = Lru[Value](5 * SIZE + 10, ttl_s=60)
    fill(cache, *map(str, range(100)))
    counts = cache.counts()
    assert (counts.entries, counts.bytes) == (5, 5 * SIZE)
    assert (counts.misses, counts.evictions) == (100, 95)
    assert all(cache.find(str(number)) for number in range(95, 100))


def test_values_larger_than_the_cache_are_used_but_not_kept() -> None:
    cache = Lru[Value](SIZE - 1, ttl_s=60)
    assert cache.find_or_compute("a", lambda: ENTRY, no_check) == (ENTRY, False)
    assert cache.find("a") is None
    assert cache.counts().bytes == 0


def test_values_expire_some_time_after_their_last_use() -> None:
    clock = Clock()
    cache = Lru[Value](10 * SIZE, ttl_s=60, clock=clock)
    fill(cache, "a", "b")
    clock.now = 50
    assert cache.find("a")
    clock.now = 70
    assert asdict(cache.counts()) | {"hits": 0} == {
        "entries": 1,
        "bytes": SIZE,
        "max_bytes": 10 * SIZE,
        "hits": 0,
        "misses": 2,
        "evictions": 0,
        "expirations": 1,
    }
    clock.now = 111
    assert cache.find("a") is None


def test_hits_and_misses_are_counted() -> None:
    cache = Lru[Value](10 * SIZE, ttl_s=60)
    fill(cache, "a", "a", "b")
    assert (cache.counts().hits, cache.counts().misses) == (1, 2)


class Race:
    """One thread computes "a" until `finish` is set; others ask for it meanwhile."""

    def __init__(self, error: Exception | None = None) -> None:
        self.cache = Lru[Value](10 * SIZE, ttl_s=60)
        self.calls = 0
        self.started, self.finish = threading.Event(), threading.Event()
        self._error = error

    def compute(self) -> Value:
        self.calls += 1
        self.started.set()
        if self.calls == 1:
            assert self.finish.wait(60)
            if self._error:
                raise self._error
        return ENTRY

    def ask(self) -> tuple[Value, bool]:
        return self.cache.find_or_compute("a", self.compute, no_check)


def test_two_requests_at_once_compute_once() -> None:
    race = Race()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(race.ask)
        assert race.started.wait(60)
        others = [pool.submit(race.ask) for _ in range(7)]
        race.finish.set()
        assert first.result() == (ENTRY, False)
        assert [other.result() for other in others] == [(ENTRY, True)] * 7
    assert race.calls == 1


def test_all_who_wait_get_the_error_and_the_next_one_tries_again() -> None:
    race = Race(error=CodedError(Code.INVALID_ARGUMENT, "nothing"))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(race.ask)
        assert race.started.wait(60)
        other = pool.submit(race.ask)
        while not other.running():
            pass
        race.finish.set()
        with pytest.raises(CodedError):
            first.result()
        # It either waited for the first or came after it.
        assert other.exception() is first.exception() or other.result() == (ENTRY, False)
    assert race.ask()[0] is ENTRY


def test_where_the_one_that_computes_is_cancelled_another_takes_over() -> None:
    race = Race(error=CodedError(Code.CANCELLED, "as wanted"))
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(race.ask)
        assert race.started.wait(60)
        others = [pool.submit(race.ask) for _ in range(3)]
        race.finish.set()
        with pytest.raises(CodedError):
            first.result()
        assert {value for value, _ in (other.result() for other in others)} == {ENTRY}
    assert race.calls == 2


def test_one_who_waits_can_be_cancelled() -> None:
    race = Race()

    def check() -> None:
        raise CodedError(Code.CANCELLED, "as wanted")

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(race.ask)
        assert race.started.wait(60)
        with pytest.raises(CodedError, match="CANCELLED"):
            race.cache.find_or_compute("a", never, check)
        race.finish.set()
        assert first.result() == (ENTRY, False)
