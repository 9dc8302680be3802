from __future__ import annotations

from typing import TYPE_CHECKING

from model_kit import memory

if TYPE_CHECKING:
    import pytest


def test_memory_is_given_back_after_so_much_work(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[bool] = []
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(True))
    returns = memory.Returns()
    for size, times in (
        (memory.AFTER_BYTES - 1, 0),
        (1, 1),
        (memory.AFTER_BYTES - 1, 1),
        (5 * memory.AFTER_BYTES, 2),
        (1, 2),
    ):
        returns.freed(size)
        assert len(given_back) == times


def test_giving_back_works_on_this_machine() -> None:
    memory.give_back()
