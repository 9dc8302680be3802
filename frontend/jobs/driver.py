"""Owns what a SQL store asks of its database's driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from frontend.jobs.statements import Steps

T = TypeVar("T")

SCHEMA_VERSION = 1
"""Of the tables that this program writes."""


class StoreRefusedError(Exception):
    """The store cannot be used: a program must not start with it."""


def refused(path: Path, reason: str) -> StoreRefusedError:
    """Return the error of a store's file that cannot be used."""
    return StoreRefusedError(
        f"cannot use {path}: {reason}. If it is damaged, move it away, and its jobs are lost; or "
        "set ARTMANCER_STATE_FOLDER to another folder"
    )


class Driver(Protocol):
    """A database; every transaction raises StoreAwayError while it cannot be reached.

    A future is a transaction that was begun: it goes on if nobody awaits it any more.
    """

    def write(self, steps: Steps[T]) -> asyncio.Future[T]:
        """Run a transaction that writes rows; it is on the disk when it returns."""

    def write_part(self, steps: Steps[T]) -> asyncio.Future[T]:
        """Run a transaction that writes a part of a blob; the next `write` brings it to disk."""

    def read(self, steps: Steps[T]) -> asyncio.Future[T]:
        """Run a transaction that only reads."""

    async def free_bytes(self) -> int:
        """Return how many bytes the database may still grow by."""

    async def shrink(self) -> None:
        """Give back the space of what was deleted."""

    async def close(self) -> None:
        """Finish what was begun, and let the database go."""
