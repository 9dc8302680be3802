"""Owns reading the pages: README.md, the other pages at the root, and those in docs/."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "examples/README.md"])
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    place: str
    """page:line of its first line"""
    language: str
    needs: tuple[str, ...]
    """What its info string names after `needs=`; GitHub shows none of it."""
    text: str


def name(page: Path) -> str:
    """Return a page's path from the root."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """Return a page's code blocks in order."""
    text = page.read_text()
    return [
        Block(
            place=f"{name(page)}:{text.count(chr(10), 0, found.start()) + 1}",
            language=found[1],
            needs=tuple(found[2].strip().removeprefix("needs=").split(",")) if found[2] else (),
            text=found[3],
        )
        for found in FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", page.read_text())


def sentences(page: Path) -> list[str]:
    """Return the sentences of a page's paragraphs and lists; tables and headings are none."""
    found = []
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", prose(page)):
        text = " ".join(paragraph.split())
        if text.startswith(("#", "|", "!", "<")):
            continue
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
        found += [each for each in re.split(r"(?<=[.:;!?])\*{0,2}\s+", text) if each]
    return found
