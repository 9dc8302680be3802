"""Owns how folders and files appear at their place: complete or not at all."""

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

DRAFT = ".draft"
"""Ends the names of folders that nobody else's tool makes."""


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Provide an empty folder that takes the target's place when the block ends well.

    The folder lies beside the target, so that the exchange is a rename within one file system.
    When the block raises, the target stays as it was. What killed processes have left beside the
    target is removed first; on a network's disk that may be what another machine works on.

    Args:
        target: where the folder is to be. Whatever lies there is removed.

    Yields:
        The folder to fill.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        # Nobody takes a new folder for a left one before it is locked.
        with _locked(target.parent, fcntl.LOCK_EX):
            _remove_left(target)
            made = tempfile.TemporaryDirectory(
                prefix=f".{target.name}.", suffix=DRAFT, dir=target.parent
            )
            workspace = stack.enter_context(made)
            stack.enter_context(_locked(Path(workspace), fcntl.LOCK_EX))
        fresh, stale = Path(workspace, "fresh"), Path(workspace, "stale")
        fresh.mkdir()
        yield fresh
        if target.exists():
            target.rename(stale)
        fresh.rename(target)


def _remove_left(target: Path) -> None:
    for left in target.parent.glob(f".{glob.escape(target.name)}.*{DRAFT}"):
        # Another process still fills it, or it is another user's.
        with (
            contextlib.suppress(OSError),
            _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB),
        ):
            shutil.rmtree(left)


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Hold a lock on a folder, which the kernel frees whatever ends the process.

    Raises:
        OSError: it is locked already and `how` says not to wait, or it is no folder.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, how)
        yield
    finally:
        os.close(opened)


@contextlib.contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """Provide a path for a file that takes the target's place when the block ends well.

    The file lies beside the target and ends in `.part`. When the block raises, the file is
    removed and the target stays as it was. A killed process leaves the `.part` behind.

    Args:
        target: where the file is to be. Its folder exists.

    Yields:
        The path to write to.
    """
    unfinished = target.with_suffix(".part")
    try:
        yield unfinished
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
