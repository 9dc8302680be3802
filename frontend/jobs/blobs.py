"""Owns how large bytes lie in a database: in parts, on a disk of which a reserve stays free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.jobs.driver import Driver

PART_BYTES = 2**20
"""A larger one would hold up every event while it is written."""
DISK_RESERVE = 64 * 2**20
"""Free bytes that the disk keeps for the events and results of the jobs that it has."""


def parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each part."""
    view = memoryview(data)
    for part, at in enumerate(range(0, len(view), PART_BYTES)):
        yield part, bytes(view[at : at + PART_BYTES])


async def check_disk(driver: Driver, size: int) -> None:
    """Check that so many bytes may be written.

    Raises:
        UnavailableError: the disk is nearly full.
    """
    # Twice, because a database writes its log first.
    if await driver.free_bytes() < DISK_RESERVE + 2 * size:
        raise UnavailableError("The disk of the job store is nearly full")
