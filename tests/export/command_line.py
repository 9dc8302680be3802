"""Owns running a command of export inside a test."""

from pathlib import Path

from typer.testing import CliRunner, Result

from export.__main__ import app


def run(*arguments: str | Path) -> Result:
    # A wide terminal keeps one line in one line.
    environment = {"COLUMNS": "400"}
    return CliRunner().invoke(app, [str(each) for each in arguments], env=environment)


def refused(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 1
    (line,) = result.output.strip().splitlines()
    return line
