"""Owns printing what extras of pyproject.toml require, to install it before our code."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main(extras: list[str]) -> None:
    """Print one requirement a line.

    Args:
        extras: their names. An extra that includes another of ours does not print that one.
    """
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            if not requirement.startswith(f"{project['name']}["):
                print(requirement)


if __name__ == "__main__":
    main(sys.argv[1:])
