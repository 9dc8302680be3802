"""Owns the time in which the event loop ran: its own lag is no evidence against anybody."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TICK_S = 0.1
# A tick that comes later than this was held up by the loop, and counts as one tick all the same.
LATE_S = 2 * TICK_S


class RunningClock:
    """Seconds in which the loop ran; call it to read it, only differences count.

    It advances only while `run` runs in a task of the same loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ran = 0.0
        self._ticked = self._loop.time()

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self._ran + min(self._loop.time() - self._ticked, LATE_S)

    async def run(self) -> NoReturn:
        """Advance the clock until this is cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self._ran = self()
            self._ticked = self._loop.time()


@contextlib.asynccontextmanager
async def timeout(seconds: float) -> AsyncIterator[None]:
    """Bound what is awaited inside, as asyncio.timeout does, by time in which the loop ran.

    A loop that stands still for longer delays the end instead of causing it, and reads first what
    has arrived meanwhile.

    Args:
        seconds: of running time.

    Raises:
        TimeoutError: they are over.
    """
    loop = asyncio.get_running_loop()
    left, ticked, may_wait = seconds, loop.time(), True
    timer: asyncio.TimerHandle | None = None
    async with asyncio.timeout(None) as limit:

        def tick() -> None:
            nonlocal left, ticked, may_wait, timer
            now = loop.time()
            elapsed, ticked = now - ticked, now
            left -= min(elapsed, TICK_S)
            if left <= 0 and elapsed > LATE_S and may_wait:
                # What the loop waits for may have come while it stood still.
                left, may_wait = TICK_S, False
            if left <= 0:
                limit.reschedule(now)
            else:
                timer = loop.call_later(min(left, TICK_S), tick)

        timer = loop.call_later(min(seconds, TICK_S), tick)
        try:
            yield
        finally:
            timer.cancel()
