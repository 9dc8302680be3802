"""The pages: how long they are, where their links lead, what they say of tensors and settings."""

from __future__ import annotations

import re
import statistics
import subprocess
from typing import TYPE_CHECKING

import pytest

from frontend.settings import OTHER_VARIABLES, Settings

from .pages import PAGES, README, blocks, name, prose, sentences

if TYPE_CHECKING:
    from pathlib import Path

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
# What a browser runs is read only.
LANGUAGES = {"bash", "python", "yaml", "text", "javascript"}


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings}


def test_a_stranger_reads_the_readme_to_its_end() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1000


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sentences_are_short(page: Path) -> None:
    lengths = {each: len(each.split()) for each in sentences(page)}
    if page.name in ("settings.md", "tensors.md") or not lengths:
        return
    assert statistics.mean(lengths.values()) <= 15
    assert [each for each, words in lengths.items() if words > 36] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        # The source files that architecture.md names are test_names.py's.
        if link.startswith("https://") or link.endswith((".py", ".pbtxt")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_every_page() -> None:
    seen, left = set(), [README]
    while left:
        page = left.pop()
        seen.add(page)
        for link in LINK.findall(prose(page)):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target not in seen:
                left.append(target)
    assert set(PAGES) - seen == set()


def test_every_code_block_is_run_or_says_why_not() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    assert {block.language for block in found} <= LANGUAGES
    for block in found:
        assert block.language in ("bash", "python") or not block.needs, block.place
        if block.language == "bash":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
        if block.language == "python":
            compile(block.text, block.place, "exec")


def test_every_variable_that_a_page_names_exists() -> None:
    known = {f"ARTMANCER_{field.upper()}" for field in Settings.model_fields} | OTHER_VARIABLES
    # The changelog names those that were, too.
    for page in [each for each in PAGES if each.name != "CHANGELOG.md"]:
        assert set(re.findall(r"ARTMANCER_[A-Z_]+", page.read_text())) <= known, page
