"""Ultralytics itself opens and runs the untrained checkpoint."""

from pathlib import Path

import numpy as np
import pytest
from ultralytics import FastSAM

from export.fastsam.untrained import SCALES, write_untrained
from export.scenes.masks import draw_scene


def test_finds_about_as_many_things_as_were_asked_for(checkpoint: Path) -> None:
    picture = draw_scene(0, 320).picture
    model = FastSAM(checkpoint)
    (result,) = model(picture[..., ::-1], verbose=False, device="cpu")  # BGR
    assert len(result.boxes) == pytest.approx(40, abs=6)
    assert result.masks.data.shape[1:] == (320, 320)
    (clicked,) = model(
        picture[..., ::-1], points=[[160, 160]], labels=[1], verbose=False, device="cpu"
    )
    assert len(clicked.masks.data) < len(result.masks.data)


def test_has_fastsams_size(checkpoint: Path) -> None:
    assert checkpoint.stat().st_size == pytest.approx(23.8e6, rel=0.02)
    assert set(SCALES) == {"FastSAM-s", "FastSAM-x"}


def test_without_a_picture_it_finds_nothing_and_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("first.pt", "second.pt"):
        write_untrained(tmp_path / name, "FastSAM-s", 320)
    models = [FastSAM(tmp_path / name) for name in ("first.pt", "second.pt")]
    for ours, theirs in zip(*(model.model.parameters() for model in models), strict=True):
        assert (ours == theirs).all()
    (result,) = models[0](np.zeros((64, 64, 3), np.uint8), verbose=False, device="cpu")
    assert len(result.boxes) == 0
