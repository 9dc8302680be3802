"""Owns the list of the commands, and what they share in their help."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from frontend.cli.edit import edit
from frontend.cli.jobs import cancel, jobs, result, status
from frontend.cli.key import key
from frontend.cli.mask import mask
from frontend.cli.serve import serve
from frontend.errors import own_words
from frontend.version import VERSION


class Commands(TyperGroup):
    """Says what is wrong with an option in our own words."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """See TyperGroup."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = own_words(error.message)
            raise


# Without markup, because rich would swallow what stands in brackets.
app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"artmancer {VERSION}")
        raise typer.Exit


@app.callback()
def artmancer(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Edit pictures and find masks on an ArtMancer server, or run one.

    The commands take the server's address from ARTMANCER_URL, and an API key, which a server may
    ask for, from ARTMANCER_API_KEY.

    Exit codes: 0 done; 1 the server or the edit failed; 2 bad input; 130 after Ctrl-C, 143 after
    SIGTERM, 129 after SIGHUP.
    """


for command in (serve, edit, mask, jobs, status, cancel, result):
    app.command()(command)
app.add_typer(key, name="key")
