"""The training command goes from scenes to the sheet, and says in one line why it cannot."""

import functools
import json
from pathlib import Path

import pytest

from export.demo_masks import dataset as mask_dataset
from export.demo_masks import release as mask_release
from export.demo_masks import training as mask_training
from tests.export.command_line import run


def test_training_runs_from_scenes_to_sheet_and_not_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_training, "SIZES", ((1.0, 64),))
    monkeypatch.setattr(mask_release, "HELD_OUT", 2)
    small_shards = functools.partial(mask_dataset.scene_pool, shard=4)
    monkeypatch.setattr(mask_dataset, "scene_pool", small_shards)
    arguments = (
        *("fastsam-train", "--workspace", tmp_path / "work", "--out", tmp_path / "demo"),
        *("--sheet", tmp_path / "sheet.png", "--photographs", tmp_path),
        *("--iterations", "2", "--scenes", "4", "--batch", "2", "--workers", "1"),
    )
    first = run(*arguments, "--threads", "2")
    assert first.exit_code == 0, first.output
    assert "at confidence 0.25: click IoU 0.000" in first.output
    assert (tmp_path / "sheet.png").exists()
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report["training"]["iterations"] == 2
    assert run(*arguments).exit_code == 0
    again = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert again["training"]["minutes"] == report["training"]["minutes"]
    refused = run(*arguments, "--seed", "2")
    assert refused.exit_code == 1
    *_, last = refused.output.strip().splitlines()
    assert "another training" in last
