from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from frontend.domain.masks import Picture
from frontend.masks.image_store import ENTRY_BYTES, ImageStore

SIZE = 1000
ME = "me"

if TYPE_CHECKING:
    from tests.fakes.clock import Clock


@pytest.fixture
def store(clock: Clock) -> ImageStore:
    """Provide a store with room for three pictures."""
    return ImageStore(3 * (SIZE + ENTRY_BYTES), ttl_s=60, clock=clock)


def picture(name: str, size: int = SIZE, text: str = "") -> Picture:
    digest = hashlib.sha256((text or name).encode()).digest()
    return Picture(name.encode().ljust(size), name, digest)


def held(store: ImageStore, *names: str) -> list[str]:
    return [name for name in names if store.get(ME, name)]


def test_a_picture_is_found_by_its_id_and_by_its_text(store: ImageStore) -> None:
    a = picture("a")
    assert store.get(ME, "a") is None
    assert store.recognise(ME, a.text_digest) is None
    store.put(ME, a)
    assert store.get(ME, "a") is a
    assert store.recognise(ME, a.text_digest) is a
    assert (len(store), store.size) == (1, SIZE + ENTRY_BYTES)


def test_what_was_unused_for_longest_goes_first(store: ImageStore) -> None:
    for name in "abc":
        store.put(ME, picture(name))
    store.get(ME, "a")
    store.recognise(ME, picture("b").text_digest)
    store.put(ME, picture("d"))
    assert held(store, *"abcd") == ["a", "b", "d"]
    assert store.recognise(ME, picture("c").text_digest) is None


def test_a_large_picture_takes_the_place_of_several(store: ImageStore) -> None:
    for name in "abc":
        store.put(ME, picture(name))
    store.put(ME, picture("d", 2 * SIZE))
    assert held(store, *"abcd") == ["c", "d"]
    assert store.size == 3 * SIZE + 2 * ENTRY_BYTES


def test_one_that_would_never_fit_moves_nobody(store: ImageStore) -> None:
    for name in "abc":
        store.put(ME, picture(name))
    store.put(ME, picture("d", 10 * SIZE))
    assert held(store, *"abcd") == ["a", "b", "c"]


def test_the_smallest_pictures_are_not_free(store: ImageStore) -> None:
    for number in range(1000):
        store.put(ME, picture(str(number), 1))
    assert len(store) < 6
    assert store.size <= 3 * (SIZE + ENTRY_BYTES)


def test_a_picture_is_held_once(store: ImageStore) -> None:
    first, second = picture("a", text="plain"), picture("a", text="with\nlines")
    store.put(ME, first)
    store.put(ME, second)
    assert (len(store), store.size) == (1, SIZE + ENTRY_BYTES)
    assert store.recognise(ME, second.text_digest) is second
    assert store.recognise(ME, first.text_digest) is None


@pytest.mark.parametrize("way", ["get", "recognise", "put"])
def test_time_counts_from_the_last_use(store: ImageStore, clock: Clock, way: str) -> None:
    a = picture("a")
    store.put(ME, a)
    clock.now += 59
    store.put(ME, picture("b"))
    match way:
        case "get":
            store.get(ME, "a")
        case "recognise":
            store.recognise(ME, a.text_digest)
        case "put":
            store.put(ME, a)
    clock.now += 59
    assert store.get(ME, "a") is not None
    clock.now += 60
    assert held(store, "a", "b") == []
    assert store.recognise(ME, a.text_digest) is None
    assert (len(store), store.size) == (0, 0)


def test_what_is_too_old_goes_without_being_asked_for(store: ImageStore, clock: Clock) -> None:
    store.put(ME, picture("a"))
    clock.now += 30
    store.put(ME, picture("b"))
    clock.now += 30
    store.expire()
    assert (len(store), store.size) == (1, SIZE + ENTRY_BYTES)


def test_a_name_is_forgotten_as_a_picture_is(store: ImageStore, clock: Clock) -> None:
    store.name(ME, "a", "A")
    store.name(ME, "b", "B")
    for _ in range(2):
        clock.now += 59
        assert store.model_name(ME, "a") == "A"
    assert store.model_name(ME, "b") is None
    store.name(ME, "a", "A")
    clock.now += 60
    assert store.model_name(ME, "a") is None
    store.name(ME, "a", "A")
    clock.now += 60
    store.expire()
    assert not store._names


def test_a_picture_is_its_owner_s(store: ImageStore) -> None:
    a = picture("a")
    store.put(ME, a)
    store.name(ME, "a", "at the model")
    assert store.get("you", "a") is None
    assert store.recognise("you", a.text_digest) is None
    assert store.model_name("you", "a") is None
    store.put("you", a)
    assert store.get("you", "a") is a
    assert len(store) == 2


def test_the_owner_of_the_most_loses_pictures_first(store: ImageStore) -> None:
    store.put(ME, picture("mine"))
    for name in "abcd":
        store.put("you", picture(name))
    assert store.get(ME, "mine")
    assert [name for name in "abcd" if store.get("you", name)] == ["c", "d"]
    store.put("a third", picture("x"))
    assert store.get("a third", "x")
    assert store.get(ME, "mine")


def test_the_store_of_all_processes_hears_of_a_use_after_a_while(
    store: ImageStore, clock: Clock
) -> None:
    assert store.due(ME, "a", 6)
    store.note_told(ME, "a")  # it has gone meanwhile
    store.put(ME, picture("a"))
    clock.now += 5
    assert not store.due(ME, "a", 6)
    store.put(ME, picture("a"))
    clock.now += 1
    assert store.due(ME, "a", 6)
    store.note_told(ME, "a")
    assert not store.due(ME, "a", 6)
