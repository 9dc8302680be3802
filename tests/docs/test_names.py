"""What the pages name is there: source files and make's targets."""

from __future__ import annotations

import re

import pytest

from .pages import PAGES, ROOT

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
ROW = re.compile(r"^\| ([^|]+) \| (.*\]\(\.\./[^|]+) \|$", re.MULTILINE)
BEHAVIOURS = dict(ROW.findall(ARCHITECTURE.partition("## Where is ...?")[2]))


def test_every_row_of_the_table_is_read() -> None:
    table = ARCHITECTURE.partition("## Where is ...?")[2].partition("\n## ")[0]
    assert len(BEHAVIOURS) == table.count("\n| ") - 1 >= 12  # one is the head


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_the_files_of_a_behaviour_exist(behaviour: str) -> None:
    for text, link in re.findall(r"\[([^\]]+)\]\(\.\./([^)]+)\)", BEHAVIOURS[behaviour]):
        assert (ROOT / link).is_file(), link
        assert link.endswith(text.partition("/")[2]), "the text names another file than the link"


def test_every_python_file_that_a_page_names_exists() -> None:
    for page in PAGES:
        for path in re.findall(
            r"`((?:frontend|export|model_kit|tests|docker)/\S+\.py)`", page.read_text()
        ):
            assert (ROOT / path).is_file(), f"{page.name}: {path}"


def test_every_target_that_a_page_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, page
