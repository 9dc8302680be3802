import json
from pathlib import Path
from typing import Any

import pytest

from export import manifest
from model_kit import bundles
from model_kit.bundles import BundleError, read_checked_manifest, read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Provide a folder that is a bundle as far as its manifest goes."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "config.json").write_text("{}")
    (tmp_path / "weights").write_bytes(b"0123456789")
    manifest.write(tmp_path, {"name": "small"})
    return tmp_path


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_export_writes_is_accepted(folder: Path) -> None:
    assert read_checked_manifest(folder)["name"] == "small"


def test_a_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere/manifest\.json"):
        read_checked_manifest(tmp_path / "nowhere")


def test_a_manifest_that_is_no_json(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_checked_manifest(folder)


def test_another_format(folder: Path) -> None:
    rewrite(folder, format=2)
    with pytest.raises(BundleError, match="format 2 is not 1"):
        read_checked_manifest(folder)


def test_a_missing_file(folder: Path) -> None:
    (folder / "weights").unlink()
    with pytest.raises(BundleError, match="weights: missing"):
        read_checked_manifest(folder)


def test_a_truncated_file(folder: Path) -> None:
    (folder / "weights").write_bytes(b"01234")
    with pytest.raises(BundleError, match="weights: 5 bytes, not 10"):
        read_checked_manifest(folder)


def test_an_altered_file(folder: Path) -> None:
    (folder / "weights").write_bytes(b"012345678X")
    with pytest.raises(BundleError, match="weights: differs"):
        read_checked_manifest(folder)


def test_a_large_file_is_measured_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MAX_HASHED_BYTES", 9)
    (folder / "weights").write_bytes(b"012345678X")
    assert read_checked_manifest(folder)
    (folder / "weights").write_bytes(b"0123")
    with pytest.raises(BundleError, match="weights: 4 bytes"):
        read_checked_manifest(folder)


def test_without_comparing_any_manifest_is_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "small"}')
    assert read_manifest(tmp_path) == {"name": "small"}


@pytest.mark.parametrize("text", ["[]", "1", "null"])
def test_a_manifest_that_is_no_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json: not a JSON object"):
        read_manifest(tmp_path)
