"""The commands do what they say, and say in one line why they cannot."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from export import manifest
from export.fastsam import commands as fastsam_commands
from export.fastsam import download as fastsam_download
from export.fastsam import parity as fastsam_parity
from tests.export.command_line import refused, run


@pytest.fixture(autouse=True)
def one_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastsam_parity, "SCENES", 1)


def test_a_checkpoint_becomes_a_bundle_with_its_parity(checkpoint: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "fastsam"
    result = run("fastsam", "--checkpoint", checkpoint, "--out", bundle, "--size", "640")
    assert result.exit_code == 0, result.output
    assert "FastSAM-s, 640 x 640; largest difference from PyTorch" in result.output
    found = manifest.verify(bundle)
    assert (found["name"], found["image_size"]) == ("FastSAM-s", 640)
    assert manifest.sha256(checkpoint) in found["base"]
    assert json.loads((bundle / "parity.json").read_text())["masks"]["compared"] >= 20


def test_a_bad_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"nothing")
    assert "x.pt: cannot be opened" in refused("fastsam", "--checkpoint", tmp_path / "x.pt")
    assert "no such file" in refused("fastsam", "--checkpoint", tmp_path / "y.pt")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either"),
        (["--checkpoint", "a.pt", "--download", "FastSAM-s"], "give either"),
        (["--download", "FastSAM-s"], "needs --sha256"),
        (["--download", "FastSAM-y", "--sha256", "0"], "must be one of"),
        (["--checkpoint", "a.pt", "--size", "500"], "640 or 1024"),
    ],
)
def test_options_that_do_not_fit_are_explained(arguments: list[str], said: str) -> None:
    result = run("fastsam", *arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_a_network_that_exports_to_another_one_is_not_placed(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    differing = {"masks": {"mean_iou": fastsam_commands.LEAST_PARITY - 0.01}}
    monkeypatch.setattr(fastsam_parity, "compare", lambda *arguments: differing)
    line = refused("fastsam", "--checkpoint", checkpoint, "--out", tmp_path / "b", "--size", "640")
    assert "masks differ" in line
    assert not (tmp_path / "b").exists()


def test_a_download_lands_beside_the_bundles(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fastsam_download, "URL", f"file://{checkpoint.parent}/{{name}}.pt")
    digest = manifest.sha256(checkpoint)
    result = run("fastsam", "--download", "FastSAM-s", "--sha256", digest, "--size", "640")
    assert result.exit_code == 0, result.output
    assert manifest.verify(tmp_path / "bundles" / "fastsam")["name"] == "FastSAM-s"
    assert "FastSAM-x" in refused("fastsam", "--download", "FastSAM-x", "--sha256", digest)


def test_the_demo_is_placed_and_what_lies_there_is_kept(tmp_path: Path) -> None:
    bundle = tmp_path / "fastsam"
    for said in ("the demo's mask network", "already"):
        result = run("fastsam-demo", "--out", bundle)
        assert result.exit_code == 0
        assert said in result.output
    fields = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(fields | {"name": "FastSAM-x"}))
    assert "kept" in run("fastsam-demo", "--out", bundle).output
    assert "the demo's" in run("fastsam-demo", "--out", bundle, "--force").output
    (tmp_path / "letter.txt").touch()
    assert "no bundle" in refused("fastsam-demo", "--out", tmp_path)


def test_without_tensorrt_the_plan_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    bundle, model = tmp_path / "fastsam", tmp_path / "model"
    assert "manifest.json" in refused("fastsam-plan", "--bundle", bundle)
    assert run("fastsam-demo", "--out", bundle).exit_code == 0
    assert "images is TYPE_FP32 [3, 1024, 1024]" in refused("fastsam-plan", "--bundle", bundle)
    model.mkdir()
    (model / "config.pbtxt").write_text(
        'max_batch_size: 8 name: "images" data_type: TYPE_FP32 dims: [ 3, 320, 320 ]'
        ' name: "output0" data_type: TYPE_FP32 dims: [ 37, 2100 ]'
        ' name: "output1" data_type: TYPE_FP32 dims: [ 32, 80, 80 ]'
    )
    line = refused("fastsam-plan", "--bundle", bundle, "--model", model)
    assert line.startswith("TensorRT is not installed here")


def test_the_plan_and_the_demo_need_no_ultralytics() -> None:
    """The image that serves has none."""
    script = (
        "import sys; sys.modules['ultralytics'] = None\nfrom export.fastsam import commands, plan"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
