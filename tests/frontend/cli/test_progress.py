"""The progress bar's line at the widths of common terminals."""

from __future__ import annotations

import io

import pytest

from frontend.cli import progress
from frontend.cli.console import PlainConsole
from frontend.client import JobUpdate
from frontend.domain.jobs import JobStatus

MESSAGE = "Preparing the condition images, or waiting for the engine"


def line(width: int, step: int, message: str | None, eta_seconds: float | None) -> str:
    file = io.StringIO()
    console = PlainConsole(file=file, width=width)
    update = JobUpdate(JobStatus.PROCESSING, 0.4, step, 20, None, message, eta_seconds)
    progress.show([update], "white-balance", console)
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_bar_says_how_far_the_edit_is_and_what_is_left(width: int) -> None:
    shown = line(width, 8, None, 128.4)
    assert shown.startswith("white-balance ━━")
    assert shown.endswith(" 40% 0:00:00 step 8/20, about 128 s left\n")
    assert len(shown) <= width + 1


@pytest.mark.parametrize(
    ("width", "end"),
    [
        (60, "Preparin…, about 128 s left\n"),
        (80, "Preparing the condition imag…, about 128 s left\n"),
        (120, f"{MESSAGE}, about 128 s left\n"),
    ],
)
def test_a_message_is_shortened_before_the_bar(width: int, end: str) -> None:
    shown = line(width, 0, MESSAGE, 128.4)
    assert shown.startswith("white-balance ━")
    assert shown.endswith(f" 40% 0:00:00 {end}")
    assert len(shown) <= width + 1


def test_nothing_is_said_of_an_unknown_end() -> None:
    assert line(80, 8, None, None).endswith(" step 8/20\n")
