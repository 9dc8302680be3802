"""Owns counting what a store's transactions do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from frontend.jobs.driver import Driver
    from frontend.jobs.statements import Steps


def counted(
    driver: Driver, name: str, monkeypatch: pytest.MonkeyPatch, kind: str = "write"
) -> list[int]:
    """Return a list that gets, of each transaction with any, how many such statements it runs.

    Args:
        driver: runs the transactions.
        name: of the statement.
        kind: `write` or `read`.
    """
    counts: list[int] = []
    run = getattr(driver, kind)

    def counting(steps: Steps[Any]) -> Steps[Any]:
        count = 0
        try:
            statement = next(steps)
            while True:
                count += statement.name == name
                statement = steps.send((yield statement))
        except StopIteration as stop:
            counts.extend([count] if count else [])
            return stop.value

    monkeypatch.setattr(driver, kind, lambda steps, *topics: run(counting(steps), *topics))
    return counts
