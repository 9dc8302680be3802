"""The manifest notices every way in which a bundle can differ from what was built."""

import json
from pathlib import Path

import pytest

from export import manifest


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "weights").write_bytes(b"abc")
    manifest.write(tmp_path, {"name": "test"})
    return tmp_path


def test_lists_size_and_hash_of_every_file(bundle: Path) -> None:
    # The SHA-256 of "abc" is the first test vector of FIPS 180-2.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest.verify(bundle) == {
        "format": 1,
        "name": "test",
        "files": {"pipeline/weights": {"sha256": digest, "bytes": 3}},
    }


@pytest.mark.parametrize("content", [b"abd", b"abcd", b""])
def test_an_altered_file_is_named(bundle: Path, content: bytes) -> None:
    (bundle / "pipeline" / "weights").write_bytes(content)
    with pytest.raises(manifest.ManifestError, match="weights: differs"):
        manifest.verify(bundle)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "pipeline" / "weights").unlink()
    with pytest.raises(manifest.ManifestError, match="weights: missing"):
        manifest.verify(bundle)


@pytest.mark.parametrize("text", ["", "{", json.dumps({"format": 2}), "[]", '{"format": 1}'])
def test_an_unreadable_manifest_is_named(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(manifest.ManifestError, match=r"manifest\.json"):
        manifest.verify(bundle)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(manifest.ManifestError, match=r"manifest\.json"):
        manifest.verify(tmp_path)


def test_a_manifest_is_read_without_its_files(bundle: Path) -> None:
    (bundle / "pipeline" / "weights").unlink()
    assert manifest.read(bundle, "name", "files")["name"] == "test"
    with pytest.raises(manifest.ManifestError, match=r"manifest\.json: lacks base, adapters"):
        manifest.read(bundle, "name", "base", "adapters")


def test_only_a_bundle_or_an_empty_folder_may_be_replaced(bundle: Path, tmp_path: Path) -> None:
    manifest.refuse_other_content(bundle)
    manifest.refuse_other_content(tmp_path / "nowhere")
    (bundle / "manifest.json").unlink()
    with pytest.raises(manifest.ManifestError, match="holds something that is no bundle"):
        manifest.refuse_other_content(bundle)
