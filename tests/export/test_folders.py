"""A folder or file is exchanged as a whole or stays as it was."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export.folders import replacing, replacing_file


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


HALF = """
import signal, sys
from pathlib import Path
from export.__main__ import main
from export.folders import replacing

main()
with replacing(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    print("half", flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_an_export_that_ends_leaves_is_gone_by_the_next(
    tmp_path: Path, number: signal.Signals
) -> None:
    target = tmp_path / "bun[d]le"
    (tmp_path / ".bun[d]le.txt").touch()
    (tmp_path / ".bun[d]le.old").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HALF, target], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"half\n"
            with replacing(target) as folder:  # one that works is left alone
                (folder / "whole").touch()
            (half,) = tmp_path.glob(".bun*/fresh/half")
            process.send_signal(number)
            process.wait()
            assert half.exists() == (number == signal.SIGKILL)
            with replacing(target) as folder:
                (folder / "whole").touch()
        finally:
            process.kill()
    assert process.returncode in (-number, 128 + number)
    assert names(tmp_path) == [".bun[d]le.old", ".bun[d]le.txt", "bun[d]le"]


def test_others_may_read_the_folder(tmp_path: Path) -> None:
    with replacing(tmp_path / "bundle"):
        pass
    assert (tmp_path / "bundle").stat().st_mode & 0o055 == 0o055


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint.pt"
    for content in ("first", "second"):
        with replacing_file(target) as unfinished:
            unfinished.write_text(content)
            assert not target.exists() or target.read_text() == "first"
        assert target.read_text() == content
    with contextlib.suppress(RuntimeError), replacing_file(target) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError
    assert target.read_text() == "second"
    assert names(tmp_path) == ["checkpoint.pt"]
