"""The contact sheet shows every flow on scenes and photographs, the result beside the truth."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from export.__main__ import app
from export.demo_edits import results as edit_results
from export.demo_edits import sheet as edit_sheet
from export.demo_edits.results import on_photograph
from export.demo_edits.samples import Flow, Sample
from export.scenes.edits import Pixels


class Perfect:
    """An editor whose results are the truths."""

    def __init__(self, bundle: Path) -> None:
        assert bundle.name == "demo"

    def edit(self, sample: Sample) -> Pixels:
        return sample.truth


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_sheet, "SIZE", 64)
    monkeypatch.setattr(edit_sheet, "SCENES", 2)
    monkeypatch.setattr(edit_results, "Editor", Perfect)


def test_the_command_draws_results_beside_truths(small: Any, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    drawn = CliRunner().invoke(app, ["demo-sheet", "--bundle", "demo", "--out", str(out)])
    assert drawn.exit_code == 0, drawn.output
    sheet = np.asarray(Image.open(out))
    panel = edit_sheet.PANEL
    for flow in range(len(Flow)):
        top = edit_sheet.TITLE + flow * (edit_sheet.TITLE + 3 * panel + edit_sheet.GAP)
        for row in range(3):
            shown = sheet[top + row * panel : top + (row + 1) * panel]
            result, truth = shown[:, 4 * panel : 5 * panel], shown[:, 5 * panel : 6 * panel]
            np.testing.assert_array_equal(result, truth)
            assert truth.std() > 1
            assert not np.array_equal(shown[:, :panel], truth)


def test_a_photograph_is_the_background_when_it_is_asked_for() -> None:
    photograph = np.full((50, 80, 3), [10, 200, 30], np.uint8)
    for flow in (Flow.REMOVAL, Flow.DESCRIBED):
        sample = on_photograph(flow, 0, 64, photograph)
        outside = sample.request.conditional_images[0][..., 0] == 0
        assert (sample.conditions.source[outside] == [10, 200, 30]).all()
