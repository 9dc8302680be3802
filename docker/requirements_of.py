"""Prints what extras of pyproject.toml require, so that packages are installed before our code."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main(extras: list[str]) -> None:
    """Print one requirement a line; our own extras inside an extra must be named themselves."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            if not requirement.startswith(f"{project['name']}["):
                print(requirement)


if __name__ == "__main__":
    main(sys.argv[1:])
