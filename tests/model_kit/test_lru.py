from __future__ import annotations

from dataclasses import asdict, dataclass

import pytest

from model_kit.errors import Code, CodedError
from model_kit.lru import Lru, PendingError
from tests.fakes.clock import Clock

SIZE = 1000


@dataclass(frozen=True, eq=False)
class Value:
    nbytes: int = SIZE


ENTRY = Value()


def never() -> Value:
    raise AssertionError("it was to be found")


def fill(cache: Lru[Value], *ids: str) -> None:
    for key in ids:
        cache.find_or_compute(key, Value)


def test_what_was_computed_is_found() -> None:
    cache = Lru[Value](10 * SIZE, ttl_s=60)
    first, was_known = cache.find_or_compute("a", lambda: ENTRY)
    assert (first, was_known) == (ENTRY, False)
    assert cache.find_or_compute("a", never) == (ENTRY, True)
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
    assert cache.find_or_compute("a", lambda: ENTRY) == (ENTRY, False)
    assert cache.find("a") is None
    assert cache.counts().bytes == 0


def test_values_expire_some_time_after_their_last_use() -> None:
    clock = Clock(0.0)
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


def test_who_asks_for_what_another_computes_is_told_at_once() -> None:
    cache = Lru[Value](10 * SIZE, ttl_s=60)
    told: list[PendingError] = []

    def compute() -> Value:
        for _ in range(3):
            with pytest.raises(PendingError) as caught:
                cache.find_or_compute("a", never)
            told.append(caught.value)
        assert not told[0].ends.done()
        return ENTRY

    assert cache.find_or_compute("a", compute) == (ENTRY, False)
    assert [each.ends.result() for each in told] == [ENTRY] * 3
    assert cache.find_or_compute("a", never) == (ENTRY, True)
    assert (cache.counts().hits, cache.counts().misses) == (1, 1)


def test_who_waits_learns_of_the_error_and_the_next_one_tries_again() -> None:
    cache = Lru[Value](10 * SIZE, ttl_s=60)
    told: list[PendingError] = []
    error = CodedError(Code.INVALID_ARGUMENT, "nothing")

    def compute() -> Value:
        with pytest.raises(PendingError) as caught:
            cache.find_or_compute("a", never)
        told.append(caught.value)
        raise error

    with pytest.raises(CodedError, match="nothing"):
        cache.find_or_compute("a", compute)
    assert told[0].ends.exception() is error
    assert cache.find_or_compute("a", lambda: ENTRY) == (ENTRY, False)
