"""Owns reading the file in which Triton writes what it is loading."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from frontend.errors import TritonDownError

if TYPE_CHECKING:
    from pathlib import Path

MAX_CHARS = 200
# Older content is a killed load's, because image_edit writes the file every two seconds.
FRESH_S = 15.0


def loading_stage(file: Path | None) -> str | None:
    """Return what Triton is loading, in words; None if it has not written that lately.

    Triton cannot be asked, because it opens no port before all models are loaded.
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
        reason: why a Triton is down, for the case that none is loading.
        file: where Triton writes what it is loading; None: nowhere.
    """
    stage = loading_stage(file)
    return TritonDownError(f"Triton is loading the models: {stage}" if stage else reason)
