import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from export import manifest
from image_edit.engine import bundle as edit_bundle
from image_edit.engine.bundle import Bundle, BundleError, load_bundle, read_manifest
from image_edit.settings import Tuning


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is a bundle as far as its manifest goes."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "config.json").write_text("{}")
    (tmp_path / "weights").write_bytes(b"0123456789")
    manifest.write(tmp_path, {"name": "small"})
    return tmp_path


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_export_writes_is_accepted(folder: Path) -> None:
    assert read_manifest(folder)["name"] == "small"


def test_a_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere/manifest\.json"):
        read_manifest(tmp_path / "nowhere")


def test_a_manifest_that_is_no_json(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_manifest(folder)


def test_another_format(folder: Path) -> None:
    rewrite(folder, format=2)
    with pytest.raises(BundleError, match="format 2 is not 1"):
        read_manifest(folder)


def test_a_missing_file(folder: Path) -> None:
    (folder / "weights").unlink()
    with pytest.raises(BundleError, match="weights: missing"):
        read_manifest(folder)


def test_a_truncated_file(folder: Path) -> None:
    (folder / "weights").write_bytes(b"01234")
    with pytest.raises(BundleError, match="weights: 5 bytes, not 10"):
        read_manifest(folder)


def test_an_altered_file(folder: Path) -> None:
    (folder / "weights").write_bytes(b"012345678X")
    with pytest.raises(BundleError, match="weights: differs"):
        read_manifest(folder)


def test_a_large_file_is_measured_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_bundle, "MAX_HASHED_BYTES", 9)
    (folder / "weights").write_bytes(b"012345678X")
    assert read_manifest(folder)
    (folder / "weights").write_bytes(b"0123")
    with pytest.raises(BundleError, match="weights: 4 bytes"):
        read_manifest(folder)


def test_the_demo_bundle_loads_with_every_adapter(bundle: Bundle) -> None:
    assert bundle.name == "artmancer-demo"
    assert tuple(bundle.adapters) == ("insertion", "removal", "white-balance")
    names = {name for names in bundle.adapters.values() for name in names}
    assert set(bundle.pipeline.get_list_adapters()["transformer"]) == names
    assert len(names) == 3
    assert not bundle.pipeline.transformer.training


@pytest.fixture
def copy(bundle_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder, tmp_path / "copy"))


def test_only_the_adapters_of_the_manifest_count(copy: Path) -> None:
    adapters = json.loads((copy / "manifest.json").read_text())["adapters"]
    rewrite(copy, adapters={"removal": adapters["removal"]})
    loaded = load_bundle(copy, Tuning("bfloat16"), "cpu")
    assert list(loaded.adapters) == ["removal"]
    assert {str(weight.dtype) for weight in loaded.pipeline.transformer.parameters()} == {
        "torch.bfloat16"
    }


def test_a_bundle_without_adapters_serves_nothing(copy: Path) -> None:
    rewrite(copy, adapters={})
    with pytest.raises(BundleError, match="lists no adapter"):
        load_bundle(copy, Tuning("float32"), "cpu")
