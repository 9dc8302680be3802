"""Owns the files in docs/ that are generated from code: `make docs` writes them.

- settings.md, from `frontend.settings.Settings`
- openapi.json, from the frontend's app
- tensors.md, from the models' config.pbtxt and the comments in it
- images/architecture.svg, from architecture.dot beside it, by Graphviz
- the table of GPU measurements in verification.md, from benchmarks/results/gpu
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import gpu_table
from frontend.http.app import create_app
from frontend.settings import CHECKOUT, Settings, example

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

DOCS = CHECKOUT / "docs"
SETTINGS = DOCS / "settings.md"
OPENAPI = DOCS / "openapi.json"
TENSORS = DOCS / "tensors.md"
VERIFICATION = DOCS / "verification.md"
MODELS = CHECKOUT / "model_repository"
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


_TENSORS_HEAD = """\
<!-- Generated from model_repository/*/config.pbtxt by `make docs`. -->
# Tensors of the models

This page is for somebody who speaks gRPC to Triton. [gRPC](grpc.md) shows how to send them.

Images are BYTES: encoded files (PNG, JPEG, WebP, BMP, GIF or TIFF), or plain pixels in the layout
of model_kit/raster.py. An `n` in a shape is any number.
"""
# Around the table of GPU measurements.
_TABLE_BEGIN = "<!-- Generated from benchmarks/results/gpu by `make docs`. -->"
_TABLE_END = "<!-- End of what is generated. -->"
# Model -> how it is called, as far as config.pbtxt does not say it.
_MODELS = {"image_edit": "an edit", "smart_mask": "a mask", "fastsam": "the mask network alone"}
_TENSOR = re.compile(
    r'((?:^ *#[^\n]*\n)*)^ *\{ name: "(\w+)" data_type: TYPE_(\w+) dims: \[([^\]]*)\]', re.MULTILINE
)


def settings_page() -> str:
    """Return settings.md: one row for each field of `Settings`, in its order."""
    return _HEAD + "".join(
        f"| `ARTMANCER_{name.upper()}` | {_default(field)} | {_values(name, field)} "
        f"| {_cell(field.description or '')} |\n"
        for name, field in Settings.model_fields.items()
    )


def tensors_page() -> str:
    """Return tensors.md: the inputs and outputs of the models that clients call.

    Raises:
        ValueError: a tensor lacks the comment that says what it is.
    """
    return _TENSORS_HEAD + "".join(map(_model, _MODELS))


def verification_page(folder: Path = gpu_table.RESULTS) -> str:
    """Return verification.md with the table of GPU measurements as the files in a folder say."""
    before, rest = VERIFICATION.read_text().split(_TABLE_BEGIN)
    after = rest.split(_TABLE_END)[1]
    return f"{before}{_TABLE_BEGIN}\n\n{gpu_table.table(folder)}\n\n{_TABLE_END}{after}"


def _model(name: str) -> str:
    text = (MODELS / name / "config.pbtxt").read_text()
    decoupled = "decoupled: true" in text
    call = (
        "**Stream only**: one request has many responses, so call it by `stream_infer`. A plain "
        "`infer` is answered UNIMPLEMENTED, also for CANCEL."
        if decoupled
        else "One request has one response: call it by `infer`, or by Triton's HTTP endpoint."
    )
    inputs, outputs = text[text.index("input [") :].split("output [", 1)
    outputs = outputs.split("\n]", 1)[0]
    return (
        f"\n## {name}: {_MODELS[name]}\n\n{call}\n\n"
        "| input | type, shape | default | unit or values | meaning |\n|---|---|---|---|---|\n"
        f"{_tensors(name, inputs, 3)}\n"
        "| output | type, shape | unit or values | meaning |\n|---|---|---|---|\n"
        f"{_tensors(name, outputs, 2)}"
    )


def _tensors(model: str, text: str, cells: int) -> str:
    rows = ""
    for comment, tensor, kind, shape in _TENSOR.findall(text):
        words = " ".join(line.strip().removeprefix("#").strip() for line in comment.splitlines())
        told = [each.strip() for each in words.split("|")]
        if len(told) != cells or not told[-1]:
            raise ValueError(f"{model}: {tensor} needs a comment of {cells} parts: {words!r}")
        dims = shape.strip().replace("-1", "n")
        kind = kind.replace("STRING", "BYTES")
        rows += f"| `{tensor}` | {kind} [{dims}] | {' | '.join(told)} |\n"
    return rows


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


def _values(name: str, field: FieldInfo) -> str:
    """Name the bounds of a number, the choices of a text, or a list's form."""
    if (listed := example(name)) is not None:
        return _cell(f"a JSON list such as `{listed}`")
    bounds = {
        name: getattr(each, name)
        for each in field.metadata
        for name in ("gt", "ge", "le")
        if getattr(each, name, None) is not None
    }
    match bounds:
        case {"ge": least, "le": most}:
            return f"{least:g} to {most:g}"
        case {"ge": least}:
            return f"{least:g} or more"
        case {"gt": below, "le": most}:
            return f"above {below:g}, at most {most:g}"
        case {"gt": below}:
            return f"above {below:g}"
    return _cell(", ".join(getattr(field.annotation, "__args__", ()))) if _is_choice(field) else ""


def _is_choice(field: FieldInfo) -> bool:
    choices = getattr(field.annotation, "__args__", ())
    return bool(choices) and all(isinstance(choice, str) for choice in choices)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write all of them."""
    argparse.ArgumentParser(
        prog="python -m scripts.generated_docs",
        description="Write the files in docs/ that are generated from code.",
    ).parse_args()
    SETTINGS.write_text(settings_page())
    OPENAPI.write_text(openapi())
    TENSORS.write_text(tensors_page())
    VERIFICATION.write_text(verification_page())
    if dot := shutil.which("dot"):
        DIAGRAM.write_text(diagram(dot))
    elif not DIAGRAM.read_text().rstrip().endswith(diagram_mark()):
        sys.exit("architecture.dot has changed: install Graphviz (Debian: apt install graphviz)")


if __name__ == "__main__":
    main()
