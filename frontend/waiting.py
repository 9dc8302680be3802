"""Owns waiting for an event with a bound."""

from __future__ import annotations

import asyncio


async def set_within(event: asyncio.Event, wait_s: float) -> bool:
    """Return whether an event is set, as soon as it is, or else after so many seconds."""
    try:
        async with asyncio.timeout(wait_s):
            return await event.wait()
    except TimeoutError:
        return False
