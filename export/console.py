"""Owns what commands show on the terminal."""

import contextlib
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.markup import escape

from export.errors import ExportError


@contextlib.contextmanager
def one_line_errors(console: Console) -> Iterator[None]:
    """Show an ExportError as one red line, and end with exit code 1."""
    try:
        yield
    except ExportError as error:
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        raise typer.Exit(1) from None
