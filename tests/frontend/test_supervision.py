"""Every task of the frontend that supervises, made to raise."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from frontend.dispatch.dispatcher import Dispatcher
from frontend.http.app import create_app
from frontend.http.connections import BoundedProtocol
from frontend.jobs import board
from frontend.loop_time import RunningClock
from frontend.masks.tritons import MaskTritons
from frontend.supervision import MAX_FAILED_ROUNDS, supervised_task
from tests.frontend.eventually import eventually

if TYPE_CHECKING:
    from frontend.settings import Settings
    from tests.frontend.conftest import Serve


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes of the ends of this process that would have been."""
    found: list[int] = []
    monkeypatch.setattr(os, "_exit", found.append)
    return found


async def fail(*_: Any) -> None:
    raise OSError(24, "Too many open files")


async def give_up() -> None:
    raise asyncio.CancelledError


async def stop() -> None:
    pass


@pytest.mark.parametrize("work", [fail, give_up, stop])
async def test_a_task_that_ends_unasked_ends_the_process(ends: list[int], work: Any) -> None:
    supervised_task("watcher", work())
    await eventually(lambda: ends == [1])


async def test_a_task_that_is_cancelled_ends_alone(ends: list[int]) -> None:
    task = supervised_task("watcher", asyncio.Event().wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert ends == []


@pytest.mark.parametrize("part", ["edits", "masks", "board"])
async def test_a_failing_round_is_survived_and_failing_rounds_are_not(
    settings: Settings, ends: list[int], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    parts: dict[str, tuple[Any, str]] = {
        "edits": (Dispatcher, "_ping_all"),
        "masks": (MaskTritons, "ping"),
        "board": (board.Board, "look"),
    }
    monkeypatch.setattr(board, "LOOK_S", 0.05)
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        left = MAX_FAILED_ROUNDS - 1
        rounds = 0
        of, name = parts[part]
        work = getattr(of, name)

        async def fail_sometimes(self: Any) -> None:
            nonlocal left, rounds
            rounds += 1
            if left > 0:
                left -= 1
                await fail()
            await work(self)

        monkeypatch.setattr(of, name, fail_sometimes)
        await eventually(lambda: rounds > 2 * MAX_FAILED_ROUNDS)
        assert ends == []
        left = MAX_FAILED_ROUNDS
        await eventually(lambda: ends == [1])


async def test_the_watch_over_connections_may_not_fail(
    serve: Serve, ends: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_judge(*_: object) -> None:
        raise OSError(24, "Too many open files")

    async with serve() as client:
        monkeypatch.setattr(BoundedProtocol, "judge", fail_to_judge)
        await client.http.get("/livez")
        await eventually(lambda: ends == [1])


async def test_the_clock_may_not_fail(ends: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = RunningClock()
    monkeypatch.setattr(RunningClock, "__call__", lambda _: 1 / 0)
    supervised_task("clock", clock.run())
    await eventually(lambda: ends == [1])
