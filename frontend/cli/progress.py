"""Owns the progress bar of a job."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from frontend.cli.console import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from frontend.client import JobUpdate


def show(updates: Iterable[JobUpdate], title: str, console: Console) -> JobUpdate:
    """Draw a job's progress until its end; without a terminal, print only the end.

    Args:
        updates: the job's events, at least one.
        title: the text before the bar.
        console: the terminal to draw on.

    Returns:
        The last event.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    rest = iter(updates)
    # Before anything is drawn: the server may refuse.
    first = next(rest)
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=1.0, state="")
        for update in itertools.chain((first,), rest):
            progress.update(bar, completed=update.progress, state=_state(update))
    return update


def _state(update: JobUpdate) -> str:
    if update.status.terminal:
        return update.status
    if update.current_step:
        return f"step {update.current_step} of {update.total_steps}"
    return printable(update.message or update.status)
