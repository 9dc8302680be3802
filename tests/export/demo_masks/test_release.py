"""Training hands over a network with a report of what was measured on this very file."""

import hashlib
import json
from pathlib import Path

import onnx
import pytest
from PIL import Image

from export.demo_masks.release import CONFIDENCES, draw_sheet, release
from export.demo_masks.training import DEPTH, MAX_CHANNELS, WIDTH, Trained, TrainingPlan
from export.fastsam.bundle import DEMO
from export.fastsam.onnx_network import image_size
from export.fastsam.sheet import GAP, TILE
from export.fastsam.yolo import segmentation_network

PLAN = TrainingPlan(seed=3, scenes=1000, batch=16, iterations=None, minutes=45.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "fastsam_demo"
    folder.mkdir()
    (folder / "stale").touch()
    trained = Trained(segmentation_network(DEPTH, WIDTH, MAX_CHANNELS).eval(), 5000, 2700.4)
    scores = release(trained, PLAN, folder, scenes=2)
    assert [score.confidence for score in scores] == list(CONFIDENCES)
    return folder


def test_holds_the_network_and_its_report(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["network.onnx", "report.json"]
    assert image_size(onnx.load(folder / "network.onnx")) == 320


def test_the_report_says_how_the_network_was_made(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    content = (folder / "network.onnx").read_bytes()
    assert report["file"] == {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    training = report["training"]
    assert training["command"] == (
        "python -m export fastsam-train --seed 3 --scenes 1000 --batch 16 --minutes 45"
    )
    assert (training["iterations"], training["minutes"]) == (5000, 45.0)
    assert report["held_out"][0]["click_missed"] == 1
    assert report["versions"]["ultralytics"]
    assert "2.09 M" in report["network"]


def test_the_shipped_report_has_the_same_form(folder: Path) -> None:
    ours, shipped = (json.loads((each / "report.json").read_text()) for each in (folder, DEMO))
    assert ours.keys() == shipped.keys()
    assert ours["held_out"][0].keys() == shipped["held_out"][0].keys()
    assert shipped["held_out"][0]["objects"] > 1000


def test_the_sheet_shows_scenes_and_photographs(tmp_path: Path) -> None:
    Image.new("L", (300, 90), 128).save(tmp_path / "grey.png")
    draw_sheet(DEMO, tmp_path / "sheet.png", [tmp_path / "grey.png"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        tile = TILE + GAP
        assert sheet.size == (5 * tile, 3 * 2 * tile)
