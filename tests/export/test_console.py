"""A command says in one line why it fails, and how far it is where no bar can be seen."""

import errno
import io
import shutil

import pytest
import typer
from rich.console import Console

from export.console import bars, one_line_errors
from export.errors import ExportError


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(output: io.StringIO) -> Console:
    return Console(file=output, width=40)


def test_an_error_is_one_line_and_exit_code_1(log: Console, output: io.StringIO) -> None:
    text = "a folder [of this length]: holds something that is no bundle"
    with pytest.raises(typer.Exit) as ended, one_line_errors(log):
        raise ExportError(text)
    assert ended.value.exit_code == 1
    assert output.getvalue() == text + "\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EFBIG, "File too large", "model.onnx"), "model.onnx: File too large"),
        (shutil.Error([("a", "b", "No space left on device")]), "[('a', 'b', 'No space left"),
    ],
)
def test_a_full_disk_is_one_line_too(
    error: OSError, text: str, log: Console, output: io.StringIO
) -> None:
    with pytest.raises(typer.Exit) as ended, one_line_errors(log):
        raise error
    assert ended.value.exit_code == 1
    assert output.getvalue().startswith(text)
    assert output.getvalue().count("\n") == 1


def test_other_errors_pass(log: Console) -> None:
    with pytest.raises(ValueError, match="a fault of ours"), one_line_errors(log):
        raise ValueError("a fault of ours")


def test_a_log_gets_a_line_a_minute_and_the_end_of_every_phase(
    log: Console, output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("export.console.time.monotonic", lambda: now)
    with bars(log) as report:
        for fraction, seconds in ((0.1, 0), (0.2, 30), (0.3, 31), (0.4, 5), (1.0, 1)):
            now += seconds
            report("base", fraction, f"at {fraction}")
        report("vae", 1.0, "done")
    assert output.getvalue().splitlines() == [
        "base            10% at 0.1",
        "base            30% at 0.3",
        "base           100% at 1.0",
        "vae            100% done",
    ]


def test_a_terminal_gets_a_bar_for_each_phase(output: io.StringIO) -> None:
    terminal = Console(file=output, width=120, force_terminal=True)
    with bars(terminal) as report:
        report("base", 0.25, "iteration 1")
        report("vae", 0.5, "iteration 2")
    last = output.getvalue()
    assert "25 %" in last
    assert "50 %" in last
    assert "iteration 2" in last
