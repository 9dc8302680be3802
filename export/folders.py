"""Folders that appear at their place complete or not at all."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Gives an empty folder that takes the target's place when the block ends well.

    It lies beside the target, so that the exchange is a rename within one file system. When the
    block raises, the target stays as it was.

    Args:
        target: where the folder shall be; whatever lies there is removed.

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
