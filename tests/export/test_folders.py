"""A folder is exchanged as a whole or stays as it was."""

import contextlib
from pathlib import Path

from export.folders import replacing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_creates_and_then_replaces(tmp_path: Path) -> None:
    target = tmp_path / "parent" / "bundle"
    for name in ("first", "second"):
        with replacing(target) as folder:
            (folder / name).touch()
        assert names(target) == [name]
    assert names(target.parent) == ["bundle"]


def test_keeps_the_target_when_the_block_raises(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "kept").touch()
    with contextlib.suppress(RuntimeError), replacing(target) as folder:
        (folder / "half").touch()
        raise RuntimeError
    assert names(target) == ["kept"]
    assert names(tmp_path) == ["bundle"]


def test_others_may_read_the_folder(tmp_path: Path) -> None:
    with replacing(tmp_path / "bundle"):
        pass
    assert (tmp_path / "bundle").stat().st_mode & 0o055 == 0o055
