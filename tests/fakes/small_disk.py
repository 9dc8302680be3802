"""Owns a small disk of its own for a test, which can really be full."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 512 * 2**20
"""Room for thousands of small jobs beside the reserve. Memory is taken only by what is written."""
_CAP_SYS_ADMIN = 21


def may_mount() -> bool:
    """Return whether this process may mount a disk; root of a container mostly may not."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [held] = re.findall(r"^CapEff:\s*(\w+)$", status, re.MULTILINE)
    return bool(int(held, 16) >> _CAP_SYS_ADMIN & 1)


class SmallDisk:
    """A file system in memory; a context manager.

    Args:
        folder: where it is mounted; it is made.
        owner: user who may use it, besides root.
    """

    def __init__(self, folder: Path, owner: str = "root") -> None:
        self.folder = folder
        self._owner = owner
        self._filler = folder / "filler"

    def __enter__(self) -> Self:
        self.folder.mkdir()
        options = f"size={SIZE},mode=700,uid={pwd.getpwnam(self._owner).pw_uid}"
        _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        _run("umount", "--lazy", str(self.folder))

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leave no byte free."""
        with self._filler.open("wb") as filler:
            try:
                # Others write meanwhile: what is free now may not be free a moment later.
                while free := shutil.disk_usage(self.folder).free:
                    at = os.fstat(filler.fileno()).st_size
                    with contextlib.suppress(OSError):
                        os.posix_fallocate(filler.fileno(), at, free)
                yield
            finally:
                self._filler.unlink()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
