"""Owns reading how far a Triton is with loading its models, of which it tells in a file."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from frontend.errors import TritonDownError

if TYPE_CHECKING:
    from pathlib import Path

MAX_CHARS = 200
# image_edit writes it every two seconds.
FRESH_S = 15.0


def loading_stage(file: Path | None) -> str | None:
    """Return what goes on, in words; None where nothing is told, or no longer.

    No port of Triton is open before all models are loaded, so it cannot be asked.
    """
    if file is None:
        return None
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            if abs(time.time() - os.fstat(lines.fileno()).st_mtime) > FRESH_S:
                return None
            return lines.readline(MAX_CHARS).strip() or None
    except OSError:
        return None


def outage_error(reason: str, file: Path | None) -> TritonDownError:
    """Return the error for work that no Triton can take now.

    Args:
        reason: why one is away, where none is loading.
        file: where Triton tells how far it is with loading, if anywhere.
    """
    stage = loading_stage(file)
    return TritonDownError(f"Triton is loading the models: {stage}" if stage else reason)
