from __future__ import annotations

import hashlib
import random

import pytest

from frontend.masks.rendezvous import chosen

PICTURES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(2000)]
ADDRESSES = [f"triton-{number}:8001" for number in range(9)]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_one_more_triton_takes_its_part_of_the_pictures_and_moves_no_other(count: int) -> None:
    before = {each: chosen(ADDRESSES[:count], each) for each in PICTURES}
    after = {each: chosen(ADDRESSES[: count + 1], each) for each in PICTURES}
    moved = [each for each in PICTURES if before[each] != after[each]]
    assert {after[each] for each in moved} == {ADDRESSES[count]}
    assert len(moved) == pytest.approx(len(PICTURES) / (count + 1), rel=0.2)


def test_the_order_of_the_list_does_not_matter() -> None:
    other = ADDRESSES.copy()
    random.Random(1).shuffle(other)
    assert other != ADDRESSES
    assert all(chosen(ADDRESSES, each) == chosen(other, each) for each in PICTURES)


def test_the_choice_is_that_of_every_version() -> None:
    # Frontends of two versions may run side by side during an upgrade.
    first = [ADDRESSES.index(chosen(ADDRESSES, each)) for each in PICTURES[:4]]
    assert first == [6, 1, 3, 0]
