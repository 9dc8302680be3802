"""How processes on one file of SQLite hear of each other's writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from frontend.jobs import sqlite_ear
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.statements import rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

PATIENCE_S = 60.0


def told(*topics: str) -> Callable[[object], Sequence[str]]:
    return lambda _: topics


class Heard:
    """What one process has heard, in order."""

    def __init__(self, driver: SqliteDriver) -> None:
        self.topics: list[str] = []
        self._news = asyncio.Event()
        driver.listen(self._hear, lambda: True)

    def _hear(self, topic: str) -> None:
        self.topics.append(topic)
        self._news.set()

    async def until(self, topic: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while topic not in self.topics:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def drivers(tmp_path: Path) -> AsyncIterator[list[SqliteDriver]]:
    opened = [SqliteDriver(tmp_path / "jobs.db") for _ in range(2)]
    yield opened
    for driver in opened:
        await driver.close()


async def test_others_hear_each_topic_once_and_the_writer_does_not(
    drivers: list[SqliteDriver],
) -> None:
    here, there = drivers
    mine, others = Heard(here), Heard(there)
    for number in range(3):
        await here.write(rows("count_finished", 1), told(f"t{number}", "all"))
        await others.until(f"t{number}")
    await there.write_part(rows("count_finished", 1), told("back"))
    await mine.until("back")
    assert mine.topics == ["back"]
    assert set(others.topics) == {"t0", "t1", "t2", "all"}
    assert others.topics.count("t1") == 1


async def test_what_was_rolled_back_is_told_to_nobody(drivers: list[SqliteDriver]) -> None:
    here, there = drivers
    others = Heard(there)

    def fail(_: object) -> list[str]:
        raise KeyError("a fault")

    with pytest.raises(KeyError):
        await here.write(rows("count_finished", 1), fail)
    await here.write(rows("finished_bytes"), told("after"))
    await others.until("after")
    assert others.topics == ["after"]


async def test_the_table_stays_small_and_is_heard_to_the_end(
    drivers: list[SqliteDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_ear, "KEPT", 5)
    here, there = drivers
    others = Heard(there)
    for number in range(50):
        await here.write(rows("finished_bytes"), told(str(number)))
    await others.until("49")
    assert here._rows.connection.execute("SELECT count(*) FROM wakes").fetchone()[0] == 5


async def test_one_who_comes_later_hears_nothing_of_before(
    drivers: list[SqliteDriver], tmp_path: Path
) -> None:
    await drivers[0].write(rows("finished_bytes"), told("before"))
    late = SqliteDriver(tmp_path / "jobs.db")
    others = Heard(late)
    await drivers[0].write(rows("finished_bytes"), told("after"))
    await others.until("after")
    assert others.topics == ["after"]
    await late.close()
