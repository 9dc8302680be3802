"""Owns waiting for what a test can only see from outside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


async def eventually(happened: Callable[[], object], timeout_s: float = 30) -> None:
    """Return once `happened` is true.

    Raises:
        TimeoutError: it did not become so.
    """
    async with asyncio.timeout(timeout_s):
        while not happened():
            await asyncio.sleep(0.005)
