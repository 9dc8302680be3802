"""Owns how folders and files appear at their place: complete or not at all."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Provide an empty folder that takes the target's place when the block ends well.

    The folder lies beside the target, so that the exchange is a rename within one file system.
    When the block raises, the target stays as it was.

    Args:
        target: where the folder is to be. Whatever lies there is removed.

    Yields:
        The folder to fill.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as workspace:
        fresh, stale = Path(workspace, "fresh"), Path(workspace, "stale")
        fresh.mkdir()
        yield fresh
        if target.exists():
            target.rename(stale)
        fresh.rename(target)


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
