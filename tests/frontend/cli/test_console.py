from __future__ import annotations

import io
from pathlib import Path

import pytest
import typer

from frontend.cli import console
from frontend.cli.console import PlainConsole, printable
from frontend.cli.progress import _state
from frontend.client import JobUpdate
from frontend.domain.jobs import JobStatus

HOSTILE = "\x1b]0;title\x07\x1b[2Jgone \x9b31m red \x00\x7f\r\n\tkept \N{SNOWMAN}"


def test_a_terminal_obeys_nothing_that_a_server_sends() -> None:
    file = io.StringIO()
    PlainConsole(file=file, soft_wrap=True, highlight=False, markup=False).print(HOSTILE)
    said = file.getvalue()
    assert not set(said) & set("\x1b\x07\x9b\x00\x7f\r")
    assert "gone" in said
    assert "\N{SNOWMAN}" in said
    assert printable("line\n\ttab") == "line\n\ttab"


def test_nor_in_a_progress_bar() -> None:
    update = JobUpdate(JobStatus.PROCESSING, 0.0, 0, 9, None, HOSTILE, None)
    assert "\x1b" not in _state(update)


def test_a_file_without_an_end_is_not_read_to_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "MAX_FILE_BYTES", 1000)
    with pytest.raises(typer.Exit) as exit_code:
        console.read(Path("/dev/zero"))
    assert exit_code.value.exit_code == 2
    said = capsys.readouterr().err
    assert said == "artmancer: cannot read /dev/zero: more than 1000 bytes\n"


def test_a_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        console.fail("Task one\ntwo not found", 2)
    assert capsys.readouterr().err == "artmancer: Task one two not found\n"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/dev/null", "/dev/null: it is empty"),
        ("https://a.b/c.png", "https://a.b/c.png: it is an address, and only files are read"),
        ("absent.png", "absent.png: No such file or directory"),
    ],
)
def test_what_is_no_file_with_a_picture(
    path: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as exit_code:
        console.read(Path(path))
    assert exit_code.value.exit_code == 2
    assert capsys.readouterr().err == f"artmancer: cannot read {said}\n"
