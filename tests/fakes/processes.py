"""Owns telling which processes still run, and what they have said."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PATIENCE_S = 60.0


def said(log: Path) -> str:
    """Return what a guarded server has said; nothing while the guard puts a new file in place."""
    try:
        return log.read_text()
    except FileNotFoundError:
        return ""


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those of `processes` that still run.

    One that has ended is a zombie until its parent asks for its exit code. Where the parent has
    ended too, that is the system's first process, which may take its time.
    """
    found = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def ended(processes: Iterable[psutil.Process]) -> None:
    """Return once none of `processes` runs any more.

    Raises:
        AssertionError: one did not end.
    """
    deadline = time.monotonic() + PATIENCE_S
    while left := alive(processes):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
