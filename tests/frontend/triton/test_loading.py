from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from frontend.triton import loading
from frontend.triton.loading import loading_stage, outage_error

if TYPE_CHECKING:
    from pathlib import Path

FRESH_S = 3600.0


@pytest.fixture(autouse=True)
def _long_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than any test may take.
    monkeypatch.setattr(loading, "FRESH_S", FRESH_S)


@pytest.mark.parametrize(
    ("content", "stage"),
    [
        (b"", None),
        (b"\n", None),
        (b"\nsecond line", None),
        (b"first\nsecond", "first"),
        (b"\xff" + b"x" * 10**6, "\N{REPLACEMENT CHARACTER}" + "x" * 199),
    ],
)
def test_the_first_line_is_read(tmp_path: Path, content: bytes, stage: str | None) -> None:
    (tmp_path / "loading").write_bytes(content)
    assert loading_stage(tmp_path / "loading") == stage


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert loading_stage(None) is None
    assert loading_stage(tmp_path / "nowhere") is None
    assert loading_stage(tmp_path) is None


def test_a_folder_has_a_file_for_each_triton(tmp_path: Path) -> None:
    (tmp_path / "triton").write_text("2 of 58 GB\n")
    (tmp_path / "triton.host.17").write_text("half a li")
    assert loading_stage(tmp_path) == "2 of 58 GB"
    (tmp_path / "triton-second").write_text("building\n")
    assert loading_stage(tmp_path) == "triton: 2 of 58 GB; triton-second: building"
    before = time.time() - FRESH_S
    os.utime(tmp_path / "triton", (before, before))
    assert loading_stage(tmp_path) == "building"


def test_what_a_killed_load_has_left_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "loading"
    file.write_text("warming up\n")
    before = time.time() - FRESH_S
    os.utime(file, (before + FRESH_S / 2, before + FRESH_S / 2))
    assert loading_stage(file) == "warming up"
    os.utime(file, (before, before))
    assert loading_stage(file) is None


def test_the_error_tells_the_stage_or_else_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "loading"
    assert outage_error("it is gone", loading_stage(file)).detail == "it is gone"
    file.write_text("warming up\n")
    assert (
        outage_error("it is gone", loading_stage(file)).detail
        == "Triton is loading the models: warming up"
    )
