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


MIN_BAR, MAX_BAR = 5, 40
# Characters of the share that is done, of the time, and of the gaps between the columns.
_FIXED = len("100%") + len("0:00:00") + 4


def show(updates: Iterable[JobUpdate], title: str, console: Console) -> JobUpdate:
    """Draw a job's progress until its end; without a terminal, print only the end.

    Args:
        updates: the job's events, at least one.
        title: the text before the bar.
        console: the terminal to draw on.

    Returns:
        The last event.
    """
    bar = BarColumn()
    columns = (
        TextColumn("{task.description}"),
        bar,
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    rest = iter(updates)
    # Before anything is drawn: the server may refuse.
    first = next(rest)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=1.0, state="")
        for update in itertools.chain((first,), rest):
            room = console.width - len(title) - _FIXED
            bar.bar_width, state = _fitted(update, room)
            progress.update(task, completed=update.progress, state=state)
    return update


def _fitted(update: JobUpdate, room: int) -> tuple[int, str]:
    """Return the width of the bar and the text behind it, which is shortened first.

    Args:
        update: an event.
        room: characters for both.
    """
    state = _state(update)
    left = "" if update.eta_seconds is None else f", about {update.eta_seconds:.0f} s left"
    if (most := max(1, room - len(left) - MIN_BAR)) < len(state):
        state = f"{state[: most - 1]}…"
    text = f"{state}{left}"
    return min(MAX_BAR, max(MIN_BAR, room - len(text))), text


def _state(update: JobUpdate) -> str:
    if update.status.terminal:
        return update.status
    if update.current_step:
        return f"step {update.current_step}/{update.total_steps}"
    return printable(update.message or update.status)
