"""Owns the files in docs/ that are generated from code: `make docs` writes them.

- settings.md, from `frontend.settings.Settings`
- openapi.json, from the frontend's app
- images/architecture.svg, from architecture.dot beside it, by Graphviz
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frontend.http.app import create_app
from frontend.settings import CHECKOUT, Settings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

DOCS = CHECKOUT / "docs"
SETTINGS = DOCS / "settings.md"
OPENAPI = DOCS / "openapi.json"
DIAGRAM_SOURCE = DOCS / "images" / "architecture.dot"
DIAGRAM = DOCS / "images" / "architecture.svg"

_HEAD = """\
<!-- Generated from frontend/settings.py by `make docs`. -->
# Settings of the frontend

This page is for an operator. Each setting is an environment variable. `artmancer serve` and the
frontend's container read them once, at start.

[.env.example](../.env.example) has what an operator of the containers usually sets. Parameters of
the models are in their `config.pbtxt`: see [Models](models.md#parameters-of-the-models).

| variable | default | values | meaning |
|---|---|---|---|
"""


def settings_page() -> str:
    """Return settings.md: one row for each field of `Settings`, in its order."""
    return _HEAD + "".join(
        f"| `ARTMANCER_{name.upper()}` | {_default(field)} | {_values(field)} "
        f"| {_cell(field.description or '')} |\n"
        for name, field in Settings.model_fields.items()
    )


def openapi() -> str:
    """Return openapi.json: what a running server answers at /openapi.json, indented."""
    return json.dumps(create_app(Settings()).openapi(), indent=2, ensure_ascii=False) + "\n"


def diagram_mark() -> str:
    """Return the comment by which a picture names the source that it was drawn from."""
    digest = hashlib.sha256(DIAGRAM_SOURCE.read_bytes()).hexdigest()
    return f"<!-- drawn from {DIAGRAM_SOURCE.name}, SHA-256 {digest} -->"


def diagram(dot: str) -> str:
    """Draw the architecture.

    Args:
        dot: path of Graphviz' program `dot`.

    Raises:
        subprocess.CalledProcessError: the source is wrong; Graphviz has said why on stderr.
    """
    command = [dot, "-Tsvg", str(DIAGRAM_SOURCE)]
    drawn = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"{drawn.rstrip()}\n{diagram_mark()}\n"


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is None or value == "":
        return "empty"
    if isinstance(value, Path):
        return f"the checkout's `{value.relative_to(CHECKOUT)}`"
    if isinstance(value, tuple):
        return f"`{json.dumps(value)}`"
    if isinstance(value, int) and value >= 2**20 and value % 2**20 == 0:
        return f"`{value}` ({value // 2**20} Mi)"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _values(field: FieldInfo) -> str:
    """Name the bounds of a number, or the choices of a text."""
    bounds = {
        name: getattr(each, name)
        for each in field.metadata
        for name in ("gt", "ge", "le")
        if getattr(each, name, None) is not None
    }
    if "gt" in bounds:
        return f"above {bounds['gt']}"
    if "le" in bounds:
        return f"{bounds['ge']} to {bounds['le']}"
    if "ge" in bounds:
        return f"{bounds['ge']} or more"
    return _cell(", ".join(getattr(field.annotation, "__args__", ()))) if _is_choice(field) else ""


def _is_choice(field: FieldInfo) -> bool:
    choices = getattr(field.annotation, "__args__", ())
    return bool(choices) and all(isinstance(choice, str) for choice in choices)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write all of them."""
    SETTINGS.write_text(settings_page())
    OPENAPI.write_text(openapi())
    if dot := shutil.which("dot"):
        DIAGRAM.write_text(diagram(dot))
    elif not DIAGRAM.read_text().rstrip().endswith(diagram_mark()):
        sys.exit("architecture.dot has changed: install Graphviz (Debian: apt install graphviz)")


if __name__ == "__main__":
    main()
