from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from frontend.domain.masks import MAX_ID_CHARS
from frontend.masks.early_cancels import MAX_REMEMBERED, PATIENCE_S, EarlyCancels

if TYPE_CHECKING:
    from tests.fakes.clock import Clock


@pytest.fixture
def cancels(clock: Clock) -> EarlyCancels:
    return EarlyCancels(clock)


def test_a_cancel_counts_for_the_next_request_of_its_id_only(cancels: EarlyCancels) -> None:
    cancels.note_cancel(("me", "a"))
    assert not cancels.take(("me", "b"))
    assert cancels.take(("me", "a"))
    assert not cancels.take(("me", "a"))


@pytest.mark.parametrize(("late_s", "counts"), [(-0.1, True), (0.1, False)])
def test_a_cancel_waits_for_seconds(
    cancels: EarlyCancels, clock: Clock, late_s: float, *, counts: bool
) -> None:
    cancels.note_cancel(("me", "a"))
    clock.now += PATIENCE_S + late_s
    assert cancels.take(("me", "a")) == counts


@pytest.mark.parametrize(("late_s", "counts"), [(-0.1, False), (0.1, True)])
def test_a_cancel_shortly_after_the_answer_is_a_late_one(
    cancels: EarlyCancels, clock: Clock, late_s: float, *, counts: bool
) -> None:
    cancels.note_answer(("me", "a"))
    clock.now += PATIENCE_S + late_s
    cancels.note_cancel(("me", "a"))
    assert cancels.take(("me", "a")) == counts


def test_a_repeated_cancel_does_not_end_the_next_request(cancels: EarlyCancels) -> None:
    cancels.note_cancel(("me", "a"))
    assert cancels.take(("me", "a"))
    cancels.note_cancel(("me", "a"))
    assert not cancels.take(("me", "a"))


def test_the_oldest_ids_are_forgotten_first(cancels: EarlyCancels) -> None:
    for number in range(MAX_REMEMBERED + 1):
        cancels.note_cancel(("me", str(number)))
    cancels.note_cancel(("me", "1"))  # the newest from now on
    cancels.note_cancel(("me", "one more"))
    remembered = [
        number for number in range(MAX_REMEMBERED + 1) if cancels.take(("me", str(number)))
    ]
    assert remembered == [1, *range(3, MAX_REMEMBERED + 1)]


def test_an_id_that_no_request_can_have_takes_no_memory(cancels: EarlyCancels) -> None:
    cancels.note_cancel(("me", "a" * MAX_ID_CHARS))
    cancels.note_cancel(("me", "b" * (MAX_ID_CHARS + 1)))
    assert cancels.take(("me", "a" * MAX_ID_CHARS))
    assert not cancels.take(("me", "b" * (MAX_ID_CHARS + 1)))


def test_nobody_cancels_the_request_of_another(cancels: EarlyCancels) -> None:
    cancels.note_cancel(("you", "a"))
    assert not cancels.take(("me", "a"))
    assert cancels.take(("you", "a"))


def test_nobody_pushes_out_the_cancels_of_another(cancels: EarlyCancels) -> None:
    cancels.note_cancel(("me", "a"))
    cancels.note_answer(("me", "b"))
    for number in range(2 * MAX_REMEMBERED):
        cancels.note_cancel(("you", str(number)))
        cancels.note_answer(("you", f"answered-{number}"))
    assert cancels.take(("me", "a"))
    assert cancels.answered(("me", "b"))
    assert not cancels.take(("you", "0"))
    assert cancels.take(("you", str(2 * MAX_REMEMBERED - 1)))
