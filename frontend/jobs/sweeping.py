"""Owns sweeping a store in pieces, between which others read and write."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, NamedTuple

from frontend.jobs.statements import row, rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from frontend.jobs.driver import Driver
    from frontend.jobs.statements import Row, Steps

ROUND_S = 0.1
"""After so long the rest waits for the next sweep: SQLite may let no other process write meanwhile,
and leases are not judged."""
ORPHANS_EACH_S = 60.0
"""So often it is looked for blobs whose rows never came."""
ORPHAN_S = 600.0
"""A row may come so long after its blobs."""
ORPHAN_SLACK_S = 60.0
"""By so much the database's clock may be set."""
LOOK_AT_ONCE = 64
"""Blobs in one transaction."""


class Piece(NamedTuple):
    """What one transaction of a sweep has done."""

    gone: bool
    """Whether anything was deleted."""
    more: bool
    """Whether there may be more to do."""


async def sweep(piece: Callable[[], Awaitable[Piece]]) -> bool:
    """Do a round of pieces, until nothing is left or its time is over; return whether any went."""
    clock = asyncio.get_running_loop().time
    until = clock() + ROUND_S
    any_gone, more = False, True
    while more:
        gone, more = await piece()
        any_gone |= gone
        more &= clock() < until
    return any_gone


class Orphans:
    """Blobs that have lain for ORPHAN_S without the row that makes them count.

    The first look goes over all blobs, because there may be orphans of any age. It may take many
    rounds: there may be a million. Each later look goes over those that are old enough since, and
    over those that a clock which was ahead has put.

    Args:
        driver: the database.
        statement: gives blobs in the order of their `put_at`, `id` and `name`, and whether they are
            `lost`.
    """

    def __init__(self, driver: Driver, statement: str) -> None:
        self._driver = driver
        self._statement = statement
        self._after: tuple[float, str, str] = (0.0, "", "")
        self._due = -math.inf

    async def look(self) -> tuple[list[str], bool]:
        """Look at some blobs; return the ids of the lost ones, and whether this look goes on."""
        clock = asyncio.get_running_loop().time
        if clock() < self._due:
            return [], False
        before, found = await self._driver.read(self._some())
        more = len(found) == LOOK_AT_ONCE
        if more:
            self._after = found[-1]["put_at"], found[-1]["id"], found[-1]["name"]
        else:
            self._after = before - ORPHAN_SLACK_S, "", ""
            self._due = clock() + ORPHANS_EACH_S
        return list(dict.fromkeys(each["id"] for each in found if each["lost"])), more

    def _some(self) -> Steps[tuple[float, Sequence[Row]]]:
        found = yield from row("now")
        assert found is not None
        before, beyond = found["now"] - ORPHAN_S, found["now"] + ORPHAN_S
        times = (*self._after, before, beyond)
        return before, (yield from rows(self._statement, *times, LOOK_AT_ONCE))
