"""Owns the pictures for display: each is encoded once for all who ask for it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

MAX_BYTES = 64 * 2**20

Encoded = tuple[bytes, str]
"""A picture's file and its media type."""
Read = Callable[[], Awaitable[bytes]]
"""Returns the PNG of a result."""


class Displays:
    """Keeps the pictures that were asked for last, within MAX_BYTES.

    Args:
        encode: turns a result's PNG, which it reads, into what is displayed, for an owner.
    """

    def __init__(self, encode: Callable[[str, Read], Awaitable[Encoded]]) -> None:
        self._encode = encode
        self._kept: OrderedDict[str, Encoded] = OrderedDict()
        self._size = 0
        self._encoding: dict[str, asyncio.Task[Encoded]] = {}

    async def of(self, owner: str, task_id: str, read: Read) -> Encoded:
        """Return a job's picture for display.

        Args:
            owner: the job's.
            task_id: the job.
            read: returns the PNG of its result, if that is not kept.

        Raises:
            ServingError: as `encode` does.
        """
        if (known := self._kept.get(task_id)) is not None:
            self._kept.move_to_end(task_id)
            return known
        if (task := self._encoding.get(task_id)) is None:
            task = asyncio.create_task(self._make(owner, task_id, read))
            # Else asyncio complains of an error that no client was left to hear.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._encoding[task_id] = task
        # Others may wait for it when this client leaves.
        return await asyncio.shield(task)

    async def _make(self, owner: str, task_id: str, read: Read) -> Encoded:
        try:
            encoded = await self._encode(owner, read)
        finally:
            del self._encoding[task_id]
        self._kept[task_id] = encoded
        self._size += len(encoded[0])
        while self._size > MAX_BYTES:
            _, (oldest, _) = self._kept.popitem(last=False)
            self._size -= len(oldest)
        return encoded
