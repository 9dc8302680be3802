from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from frontend.cli.output import FORMATS, Output, check_apart
from tests.fakes.profiles import profile
from tests.frontend.scripted_server import picture


def test_a_png_is_written_as_it_is(tmp_path: Path) -> None:
    Output(tmp_path / "out.PNG").write(data := picture())
    assert (tmp_path / "out.PNG").read_bytes() == data
    assert len(list(tmp_path.iterdir())) == 1


def test_transparency_becomes_white_in_a_jpeg(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(buffer, "PNG")
    Output(tmp_path / "out.jpg").write(buffer.getvalue())
    with Image.open(tmp_path / "out.jpg") as written:
        assert (written.format, written.getpixel((4, 4))) == ("JPEG", (255, 255, 255))


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_keeps_the_size_the_colours_and_their_profile(
    tmp_path: Path, suffix: str
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 60, 40)).save(buffer, "PNG", icc_profile=profile())
    path = tmp_path / f"out{suffix}"
    Output(path).write(buffer.getvalue())
    with Image.open(path) as written:
        assert (written.format, written.size) == (FORMATS[suffix], (300, 200))
        assert written.info["icc_profile"] == profile()
        pixels = np.asarray(written).astype(int)
    assert np.abs(pixels - (200, 60, 40)).max() <= 4


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".ico", ".xyz", ""])
def test_a_format_that_would_lose_something_is_refused_at_once(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as exit_code:
        Output(tmp_path / f"out{suffix}")
    assert exit_code.value.exit_code == 2
    assert ".png, .jpg, .jpeg, .webp, .tif and .tiff are known" in capsys.readouterr().err


def test_a_file_that_is_there_is_replaced_and_a_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target.png", tmp_path / "link.png"
    target.write_bytes(b"before")
    link.symlink_to(target)
    output = Output(link)
    assert target.read_bytes() == b"before"
    output.write(picture())
    assert link.is_symlink()
    assert target.read_bytes() == picture()


def test_what_cannot_be_encoded_leaves_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"before")
    with pytest.raises(typer.Exit) as exit_code:
        Output(path).write(Image.new("LAB", (4, 4)), "; keep calm")
    assert exit_code.value.exit_code == 1
    message = capsys.readouterr().err
    assert message.startswith(f"artmancer: cannot write {path}: ")
    assert message.endswith("; keep calm\n")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [
        ("out.png", b"before")
    ]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everything")
def test_a_protected_file_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"before")
    path.chmod(0o400)
    with pytest.raises(typer.Exit) as exit_code:
        Output(path)
    assert exit_code.value.exit_code == 2


def test_what_a_killed_process_of_the_same_number_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / f".out.png.{os.getpid()}.part").write_bytes(b"half")
    Output(tmp_path / "out.png").write(picture())
    assert [each.name for each in tmp_path.iterdir()] == ["out.png"]


def test_a_working_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(typer.Exit) as exit_code:
        Output(Path("out.png"))
    assert exit_code.value.exit_code == 2
    assert capsys.readouterr().err == (
        "artmancer: cannot write out.png: No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("out", "overlay", "said"),
    [
        ("in.png", None, "--out and --image are the same file: in.png"),
        ("./in.png", None, "--out and --image are the same file: in.png"),
        ("link.png", None, "--out and --image are the same file: link.png"),
        ("new.png", "in.png", "--overlay and --image are the same file: in.png"),
        ("new.png", "folder/../new.png", "--out and --overlay are the same file: new.png"),
        ("new.png", "other.png", ""),
        ("old.png", None, ""),
    ],
)
def test_what_would_be_written_over_another_file_of_the_command_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    out: str,
    overlay: str | None,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("in.png", "old.png"):
        (tmp_path / name).touch()
    (tmp_path / "link.png").symlink_to("in.png")
    outputs = {"--out": Path(out), "--overlay": Path(overlay) if overlay else None}
    with pytest.raises(typer.Exit) if said else contextlib.nullcontext() as exit_code:
        check_apart(outputs, {"--image": Path("in.png"), "--rough-mask": None})
    assert exit_code is None or exit_code.value.exit_code == 2
    assert capsys.readouterr().err == (f"artmancer: {said}\n" if said else "")
