"""Owns what a SQL store asks of its database's driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from frontend.jobs.statements import SCHEMA_VERSION

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from frontend.jobs.statements import Steps

T = TypeVar("T")


Topics = Callable[[T], Sequence[str]]
"""The outcome of a transaction to the topics that it was about."""


def no_topics(_outcome: object) -> Sequence[str]:
    """Return none."""
    return ()


class StoreRefusedError(Exception):
    """The store cannot be used: a program must not start with it."""


def check_version(version: int, place: str, way_out: str) -> None:
    """Check that this program knows the tables of a database.

    Args:
        version: of its schema.
        place: what the operator calls the database.
        way_out: the setting to change, and to what.

    Raises:
        StoreRefusedError: a newer program has written them.
    """
    if version > SCHEMA_VERSION:
        raise StoreRefusedError(
            f"{place} was written by a newer version of this program (schema {version}, this one "
            f"knows {SCHEMA_VERSION}): start that one, or set {way_out}"
        )


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

    def write(self, steps: Steps[T], topics: Topics[T] = no_topics) -> asyncio.Future[T]:
        """Run a transaction that writes rows; it is on the disk when it returns.

        Args:
            steps: the transaction.
            topics: what other processes are told that it was about, by its outcome.
        """

    def write_part(self, steps: Steps[T], topics: Topics[T] = no_topics) -> asyncio.Future[T]:
        """Do as `write` does, without waiting for the disk: the next `write` does so for both.

        For parts of blobs, which count by what `write` adds, and for what soon changes anyway.
        """

    def read(self, steps: Steps[T]) -> asyncio.Future[T]:
        """Run a transaction that only reads."""

    def listen(self, heard: Callable[[str], None], busy: Callable[[], bool]) -> None:
        """Call `heard` with the topics of what other processes write.

        Where that takes looking for it, it is looked for more often while `busy` says that somebody
        follows or runs a job.

        That is a hint: it may be lost, doubled or early.
        """

    async def free_bytes(self) -> float:
        """Return how many bytes the database may still grow by; infinity if nobody can tell."""

    async def shrink(self, *, freed: bool) -> None:
        """Give back some of the space of what was deleted.

        So much at once that others wait for it no longer than for their own. Nothing is done once
        all is given back, until something is `freed`: what was deleted since the last call.
        """

    async def close(self) -> None:
        """Finish what was begun, and let the database go."""
