"""Owns the commands `artmancer key`."""

from __future__ import annotations

from typing import Annotated

import typer

from frontend.cli.console import BAD_INPUT, console, fail, stderr

key = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@key.callback()
def _commands() -> None:
    """Make API keys for a server."""


@key.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is: letters, digits, - and _.")],
) -> None:
    """Print a new key to stderr, and to stdout what ARTMANCER_KEYS_FILE has to say of it.

    The key is shown this once. Clients send it as `Authorization: Bearer <key>`; artmancer's own
    commands take it from ARTMANCER_API_KEY.
    """
    from frontend import keys  # with pydantic, a quarter of a command's start

    try:
        made, lines = keys.make(name)
    except keys.KeysError as error:
        fail(str(error), BAD_INPUT)
    stderr.print(f"The key of {name}, which is shown this once: {made}")
    console.print(lines, end="")
