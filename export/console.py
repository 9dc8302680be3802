"""Owns what commands show on the terminal: an error as one line, and how far they are."""

import contextlib
import time
from collections.abc import Callable, Iterator

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from export.errors import ExportError

# Seconds between two lines where nobody watches a bar.
LOG_EVERY = 60.0


@contextlib.contextmanager
def one_line_errors(console: Console) -> Iterator[None]:
    """Show an ExportError, or a file's error, as one red line, and end with exit code 1."""
    try:
        yield
    except (ExportError, OSError) as error:
        console.print(f"[red]{escape(_told(error))}[/red]", soft_wrap=True)
        raise typer.Exit(1) from None


def _told(error: ExportError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(str(each) for each in (error.filename, error.strerror) if each)
    return str(error)


@contextlib.contextmanager
def bars(console: Console) -> Iterator[Callable[[str, float, str], None]]:
    """Show a bar for each phase on a terminal; elsewhere print a line every minute.

    Yields:
        A function to call with the phase, the fraction of it that is done (0..1) and what the
        command does now. The end of a phase always gets its line.
    """
    columns = (
        TextColumn("{task.description:14}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    hidden = not console.is_terminal
    tasks: dict[str, TaskID] = {}
    logged = float("-inf")
    with Progress(*columns, console=console, disable=hidden) as progress:

        def report(phase: str, fraction: float, detail: str) -> None:
            nonlocal logged
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=1.0, detail="")
            progress.update(tasks[phase], completed=fraction, detail=detail)
            if hidden and (time.monotonic() - logged > LOG_EVERY or fraction >= 1):
                logged = time.monotonic()
                console.print(f"{phase:14} {fraction:4.0%} {detail}", soft_wrap=True)

        yield report
