"""The generated files in docs/ are what `make docs` would write now."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from frontend.settings import Settings
from scripts import generated_docs

if TYPE_CHECKING:
    from pathlib import Path

STALE = "run `make docs` and commit what it writes"


def test_the_page_of_settings_is_the_code_s() -> None:
    assert generated_docs.SETTINGS.read_text() == generated_docs.settings_page(), STALE


def test_the_page_of_settings_has_every_setting() -> None:
    page = generated_docs.settings_page()
    assert len(Settings.model_fields) > 30
    for field in Settings.model_fields:
        assert f"| `ARTMANCER_{field.upper()}` |" in page


def test_openapi_json_is_the_app_s() -> None:
    # Compared as JSON first: a difference is easier to read.
    text = generated_docs.openapi()
    assert json.loads(generated_docs.OPENAPI.read_text()) == json.loads(text), STALE
    assert generated_docs.OPENAPI.read_text() == text, STALE


def test_openapi_json_does_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTMANCER_MAX_CONDITIONAL_IMAGES", "1")
    monkeypatch.setenv("ARTMANCER_LOG_LEVEL", "error")
    assert generated_docs.OPENAPI.read_text() == generated_docs.openapi()


def test_the_picture_was_drawn_from_its_source() -> None:
    assert generated_docs.diagram_mark() in generated_docs.DIAGRAM.read_text(), STALE


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_draws_every_part() -> None:
    drawn = generated_docs.diagram("dot")
    for part in ("image_edit", "edit_conditions", "smart_mask", "fastsam", "frontend"):
        assert part in drawn


def test_a_changed_source_does_not_go_unnoticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed = tmp_path / "architecture.dot"
    changed.write_text(generated_docs.DIAGRAM_SOURCE.read_text() + "// another\n")
    monkeypatch.setattr(generated_docs, "DIAGRAM_SOURCE", changed)
    assert generated_docs.diagram_mark() not in generated_docs.DIAGRAM.read_text()
