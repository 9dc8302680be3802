"""Owns the SQL statements by name, and how a transaction is written without knowing its driver.

A transaction is a generator: it yields a statement, is sent its rows and returns its outcome. So
one text serves a driver that blocks in a thread and one that awaits.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

Row = Mapping[str, Any]
FOLDER = importlib.resources.files("frontend.jobs") / "sql"
MIGRATIONS = ("pictures", "workers")
"""Scripts that each make the next version of the tables, from 2 on. A new database runs all."""
SCHEMA_VERSION = 1 + len(MIGRATIONS)
"""Of the tables that this program writes."""


class Statement(NamedTuple):
    """One statement and what its $1, $2, ... stand for."""

    name: str
    values: tuple[Any, ...]


Steps = Generator[Statement, Sequence[Row], T]
"""A transaction with an outcome of type T."""


def texts() -> dict[str, str]:
    """Return the SQL of each statement by its name."""
    blocks = re.split(r"^-- name: (\w+)\n", (FOLDER / "queries.sql").read_text(), flags=re.M)
    return dict(zip(blocks[1::2], (text.strip() for text in blocks[2::2]), strict=True))


def scripts(dialect: str, version: int) -> list[str]:
    """Return what brings a database to SCHEMA_VERSION, in this order.

    Args:
        dialect: `sqlite` or `postgres`.
        version: of its tables; 0: it has none.
    """
    steps = ((dialect, "indexes"), *((name,) for name in MIGRATIONS))
    return [
        "".join((FOLDER / f"{name}.sql").read_text() for name in names) for names in steps[version:]
    ]


def for_postgres(text: str) -> str:
    """Return SQL with what only PostgreSQL needs; it stands in comments /*+ ... */."""
    return re.sub(r"/\*\+(.*?)\*/", r"\1", text, flags=re.DOTALL)


def split(script: str) -> list[str]:
    """Return the statements of a script, which has semicolons only behind them."""
    code = re.sub(r"--.*", "", script)
    return [text.strip() for text in code.split(";") if text.strip()]


def rows(name: str, *values: Any) -> Steps[Sequence[Row]]:
    """Run a statement and return its rows."""
    found = yield Statement(name, values)
    return found


def row(name: str, *values: Any) -> Steps[Row | None]:
    """Run a statement and return its first row; None if there is none."""
    found = yield Statement(name, values)
    return found[0] if found else None
