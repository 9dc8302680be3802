"""Owns waiting for a store that is away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import structlog

from frontend.errors import StoreAwayError
from frontend.waiting import set_within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = structlog.get_logger()

T = TypeVar("T")

RETRY_S = 0.5


class Patience:
    """Asks a store again for as long as it is away, until this process stops.

    Nobody else can begin a job while the store is away, so to wait costs nothing.
    """

    def __init__(self) -> None:
        self._over = asyncio.Event()

    def end(self) -> None:
        """Let what is asked now, and what is asked from now on, be asked no second time."""
        self._over.set()

    async def answer(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what the store answers, however late.

        Args:
            ask: asks once; to ask again must change nothing more.

        Raises:
            StoreAwayError: the store is away, and this process stops.
        """
        while True:
            try:
                return await ask()
            except StoreAwayError as error:
                log.warning("store_away", reason=error.reason)
                if await set_within(self._over, RETRY_S):
                    raise
