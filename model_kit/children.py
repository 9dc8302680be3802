"""Owns what a program's children learn of its environment."""

from __future__ import annotations

import os


def environment() -> dict[str, str]:
    """Return this process's environment without the program's own settings.

    A password of the database is among them, and none of a parser's or of Triton's, which
    strangers' bytes reach. What a child needs of them it is given by name.
    """
    own = "ARTMANCER_"
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}
