"""The generated files in docs/ are what `make docs` would write now."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from tritonclient.grpc.model_config_pb2 import DataType

from frontend.settings import Settings
from scripts import generated_docs
from tests.fakes.wire import model_config

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


def test_the_page_of_settings_has_both_bounds_of_a_number() -> None:
    rows = [line.split(" | ") for line in generated_docs.settings_page().splitlines()]
    values = {row[0]: row[2] for row in rows if len(row) == 4}
    assert values["| `ARTMANCER_STUB_SILENCE_TIMEOUT_S`"] == "5 or more"
    assert values["| `ARTMANCER_OWNER_FRACTION`"] == "above 0, at most 1"
    assert values["| `ARTMANCER_MAX_QUEUE_SIZE`"] == "1 to 512"
    assert values["| `ARTMANCER_MASK_TIMEOUT_S`"] == "above 0"


def test_the_page_of_tensors_is_the_models() -> None:
    assert generated_docs.TENSORS.read_text() == generated_docs.tensors_page(), STALE


def test_the_table_of_gpu_measurements_is_the_files() -> None:
    assert generated_docs.VERIFICATION.read_text() == generated_docs.verification_page(), STALE


def test_a_measurement_on_a_gpu_becomes_a_row(tmp_path: Path) -> None:
    report = {
        "measurement": "vae",
        "date": "2026-12-01T10:00:00+00:00",
        "device": "NVIDIA H200",
        "results": {"summary": ["encode 90.0 to 31.0 ms", "decode 150.0 to 52.0 ms"]},
    }
    (tmp_path / "2026-12-01-vae.json").write_text(json.dumps(report))
    row = "| vae | 2026-12-01 | NVIDIA H200 | encode 90.0 to 31.0 ms; decode 150.0 to 52.0 ms |"
    page = generated_docs.verification_page(tmp_path)
    assert row in page.splitlines()
    # The rest of the page stays.
    assert page.count("\n## ") == generated_docs.VERIFICATION.read_text().count("\n## ")


@pytest.mark.parametrize("model", ["image_edit", "smart_mask", "fastsam"])
def test_the_page_of_tensors_has_every_tensor_as_triton_knows_it(model: str) -> None:
    page = generated_docs.tensors_page().partition(f"\n## {model}:")[2].partition("\n## ")[0]
    config = model_config(f"{model}/config.pbtxt")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = [(row[0].strip("| `"), row[1]) for row in rows]
    assert told == [
        (
            each.name,
            f"{DataType.Name(each.data_type).removeprefix('TYPE_').replace('STRING', 'BYTES')} "
            f"[{', '.join('n' if size == -1 else str(size) for size in each.dims)}]",
        )
        for each in [*config.input, *config.output]
    ]
    assert ("Stream only" in page) == config.model_transaction_policy.decoupled


def test_a_tensor_without_a_word_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(generated_docs.MODELS, tmp_path / "models")
    config = tmp_path / "models" / "smart_mask" / "config.pbtxt"
    config.write_text(
        config.read_text().replace(
            "input [\n", 'input [\n  { name: "NEW" data_type: TYPE_BOOL dims: [ 1 ] },\n'
        )
    )
    monkeypatch.setattr(generated_docs, "MODELS", tmp_path / "models")
    with pytest.raises(ValueError, match="smart_mask: NEW needs a comment of 3 parts"):
        generated_docs.tensors_page()


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
