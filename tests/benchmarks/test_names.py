"""Each benchmark can be called by a name that the page of benchmarks lists."""

from __future__ import annotations

from pathlib import Path

from benchmarks.__main__ import ALONE, SERVED, Name

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def test_every_name_is_measured_once_and_documented() -> None:
    names = sorted({*Name} - {Name.ALL})
    assert sorted([*SERVED, *ALONE]) == names
    [listed] = [line for line in PAGE.read_text().splitlines() if "measures one:" in line]
    assert [name for name in names if f"`{name}`" not in listed] == []
