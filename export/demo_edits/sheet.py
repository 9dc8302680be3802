"""Owns the contact sheet of a bundle's edits, for people to judge."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from export.demo_edits.results import Editor, held_out, on_photograph
from export.demo_edits.samples import Flow, Sample
from export.scenes import photographs
from export.scenes.edits import Pixels

SIZE = 256
SCENES = 4
PANEL = 112  # pixels
COLUMNS = 2
TITLE = 18  # pixels
GAP = 6  # pixels
MOST_CONDITIONS = 3
HEADING = "input | conditions in order | result | truth"


def draw_sheet(editor: Editor, path: Path, on_edit: Callable[[int, int], None]) -> None:
    """Edit held-out scenes and photographs in every flow, and draw them side by side.

    Args:
        editor: the bundle.
        path: the picture to write.
        on_edit: called after every edit with the number of edits done and the number of all edits.
    """
    pictures = photographs.load(photographs.HELD_OUT)
    each = SCENES + len(pictures)
    width = COLUMNS * (3 + MOST_CONDITIONS) * PANEL + (COLUMNS - 1) * GAP
    rows = -(-each // COLUMNS)
    sheet = Image.new("RGB", (width, len(Flow) * (TITLE + rows * PANEL + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    top, done = 0, 0
    for flow in Flow:
        pen.text((2, top + 3), f"{flow}: {HEADING}", fill="black")
        top += TITLE
        for index, sample in enumerate(_samples(flow, pictures)):
            left = index % COLUMNS * (width + GAP) // COLUMNS
            for number, panel in enumerate(_panels(sample, editor.edit(sample))):
                scaled = Image.fromarray(panel).resize((PANEL, PANEL), Image.Resampling.LANCZOS)
                sheet.paste(scaled, (left + number * PANEL, top + index // COLUMNS * PANEL))
            done += 1
            on_edit(done, len(Flow) * each)
        top += rows * PANEL + GAP
    sheet.save(path)


def _samples(flow: Flow, pictures: list[Pixels]) -> Iterator[Sample]:
    for index in range(SCENES):
        yield held_out(flow, index, SIZE)
    for index, picture in enumerate(pictures):
        yield on_photograph(flow, index, SIZE, picture)


def _panels(sample: Sample, result: Pixels) -> list[Pixels]:
    conditions = list(sample.conditions.images)
    missing = MOST_CONDITIONS - len(conditions)
    empty = np.full_like(sample.truth, 255)
    return [sample.conditions.source, *conditions, *[empty] * missing, result, sample.truth]
