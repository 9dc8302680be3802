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
    """Make a new key.

    The key goes to stderr, and is shown this once. Its entry goes to stdout: append it to the file
    that ARTMANCER_KEYS_FILE names. To replace a key, remove the old entry of that name first.

    Clients send the key as `Authorization: Bearer <key>`. The commands of artmancer take it from
    ARTMANCER_API_KEY.
    """
    from frontend import keys  # with pydantic, a quarter of a command's start

    try:
        made, lines = keys.make(name)
    except keys.KeysError as error:
        fail(str(error), BAD_INPUT)
    stderr.print(f"The key of {name}, which is shown this once: {made}")
    console.print(lines, end="")
