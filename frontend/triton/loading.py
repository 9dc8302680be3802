"""Owns reading the files in which Tritons write what they are loading."""

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


def loading_stage(path: Path | None) -> str | None:
    """Return what is being loaded, in words; None if no Triton has written that lately.

    Triton cannot be asked, because it opens no port before all models are loaded.

    Args:
        path: a Triton's file; or a folder with a file for each Triton, named after it; or None.
    """
    if path is None:
        return None
    if not path.is_dir():
        return _stage(path)
    # A name with a dot is a file that is still being written.
    files = sorted(file for file in path.iterdir() if "." not in file.name)
    stages = {file.name: stage for file in files if (stage := _stage(file))}
    if len(stages) <= 1:
        return next(iter(stages.values()), None)
    return "; ".join(f"{name}: {stage}" for name, stage in stages.items())


def _stage(file: Path) -> str | None:
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            if abs(time.time() - os.fstat(lines.fileno()).st_mtime) > FRESH_S:
                return None
            return lines.readline(MAX_CHARS).strip() or None
    except OSError:
        return None


def outage_error(reason: str, stage: str | None) -> TritonDownError:
    """Return the error for work that no Triton can take now.

    Args:
        reason: why a Triton is down, for the case that none is loading.
        stage: what is being loaded, as of `loading_stage`.
    """
    return TritonDownError(f"Triton is loading the models: {stage}" if stage else reason)
