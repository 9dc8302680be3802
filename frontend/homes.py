"""Owns reading ~ in a path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def expanded(path: Path) -> Path:
    """Return a path with its ~ read as a shell reads it.

    Raises:
        ValueError: this user, or the one that it names, has no home.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: no home is known for {path.parts[0]}") from error
