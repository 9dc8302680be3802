from __future__ import annotations

from model_kit import memory


def test_memory_is_given_back_after_so_much_work() -> None:
    returns = memory.Returns()
    assert not returns.is_due(memory.AFTER_BYTES - 1)
    assert returns.is_due(1)
    assert not returns.is_due(memory.AFTER_BYTES - 1)
    assert returns.is_due(5 * memory.AFTER_BYTES)
    assert not returns.is_due(0)


def test_what_is_free_goes_back_to_the_machine() -> None:
    memory.give_back()
    memory.Returns().freed(memory.AFTER_BYTES)
