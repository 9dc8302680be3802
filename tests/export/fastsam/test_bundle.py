"""The demo's bundle is put in place, and never over an operator's own network."""

import json
from pathlib import Path

import pytest

from export import manifest
from export.fastsam.bundle import DEMO, DEMO_NAME, place, place_demo


def put_real(bundle: Path) -> None:
    place(bundle, "FastSAM-s", "FastSAM-s.pt", 1024, b"network", {"masks": {"min_iou": 1.0}})


def name(bundle: Path) -> str:
    found: str = manifest.verify(bundle)["name"]
    return found


def test_an_exported_network_is_described_by_its_manifest(tmp_path: Path) -> None:
    bundle = tmp_path / "bundles" / "fastsam"
    put_real(bundle)
    found = manifest.verify(bundle)
    files = found.pop("files")
    assert found == {
        "format": 1,
        "name": "FastSAM-s",
        "base": "FastSAM-s.pt",
        "network": "network.onnx",
        "image_size": 1024,
        "confidence": 0.25,
    }
    assert files.keys() == {"network.onnx", "parity.json"}
    assert json.loads((bundle / "parity.json").read_text()) == {"masks": {"min_iou": 1.0}}


def test_the_demo_is_the_shipped_network(tmp_path: Path) -> None:
    assert place_demo(tmp_path / "fastsam", force=False) == "placed"
    found = manifest.verify(tmp_path / "fastsam")
    assert (found["name"], found["image_size"]) == (DEMO_NAME, 320)
    assert found["confidence"] == 0.1
    shipped = (DEMO / "network.onnx").read_bytes()
    assert (tmp_path / "fastsam" / found["network"]).read_bytes() == shipped
    assert "seed" in found["base"]


def test_the_shipped_network_is_the_one_that_was_measured() -> None:
    report = json.loads((DEMO / "report.json").read_text())
    assert manifest.fingerprint(DEMO / "network.onnx") == report["file"]
    assert report["file"]["bytes"] < 8_000_000
    assert report["held_out"][0]["confidence"] == 0.25


def test_placing_it_again_changes_nothing(tmp_path: Path) -> None:
    place_demo(tmp_path, force=False)
    inode = (tmp_path / "network.onnx").stat().st_ino
    assert place_demo(tmp_path, force=False) == "current"
    assert (tmp_path / "network.onnx").stat().st_ino == inode


@pytest.mark.parametrize("damage", ["altered", "missing", "older"])
def test_a_damaged_or_older_demo_is_replaced(tmp_path: Path, damage: str) -> None:
    place_demo(tmp_path, force=False)
    network = tmp_path / "network.onnx"
    if damage == "missing":
        network.unlink()
    else:
        network.write_bytes(b"other weights")
    if damage == "older":
        manifest.write(tmp_path, json.loads((tmp_path / "manifest.json").read_text()))
        assert manifest.verify(tmp_path)
    assert place_demo(tmp_path, force=False) == "placed"
    assert manifest.verify(tmp_path)
    assert network.stat().st_size > 1_000_000


def test_another_network_is_kept_unless_forced(tmp_path: Path) -> None:
    put_real(tmp_path)
    assert place_demo(tmp_path, force=False) == "kept"
    assert name(tmp_path) == "FastSAM-s"
    (tmp_path / "network.onnx").write_bytes(b"damaged, but not ours to replace")
    assert place_demo(tmp_path, force=False) == "kept"
    assert place_demo(tmp_path, force=True) == "placed"
    assert name(tmp_path) == DEMO_NAME


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_manifest_without_a_name_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(manifest.ManifestError, match=r"manifest\.json"):
        place_demo(tmp_path, force=False)
    assert place_demo(tmp_path, force=True) == "placed"


def test_a_folder_of_something_else_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(manifest.ManifestError, match="no bundle"):
        place_demo(tmp_path, force=True)
    with pytest.raises(manifest.ManifestError, match="no bundle"):
        put_real(tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "dear"
