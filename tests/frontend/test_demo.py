from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from frontend import demo

if TYPE_CHECKING:
    from pathlib import Path


def size(name: str) -> tuple[int, int]:
    with Image.open(demo.EXAMPLES / name) as image:
        return image.size


@pytest.mark.parametrize("example", demo.EDITS, ids=lambda example: example.task)
def test_the_sample_masks_fit_their_pictures(example: demo.Example) -> None:
    for picture, mask in [
        (example.image, example.mask),
        (example.reference, example.reference_mask),
    ]:
        if picture is None or mask is None:
            continue
        assert size(picture) == size(mask)
        with Image.open(demo.EXAMPLES / mask) as image:
            values = np.asarray(image)
        assert set(np.unique(values)) == {0, 255}
        assert 0.02 < (values == 255).mean() < 0.6


def test_every_sample_picture_is_described() -> None:
    readme = (demo.EXAMPLES / "README.md").read_text()
    names = {path.name for path in demo.EXAMPLES.iterdir()} - {"README.md"}
    assert {name for name in names if f"`{name}`" in readme} == names


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_the_demo_leaves_a_picture_of_each_task_and_shows_them_all_in_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "frontend.demo", "--out", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        *("demo.png", "mask.png", "mask-overlay.png"),
        *(f"{example.task}.png" for example in demo.EDITS),
    }
    for name in ("mask.png", "mask-overlay.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == size(demo.CLICKED)
    with Image.open(tmp_path / "mask.png") as mask:
        found = np.asarray(mask) > 128
    x, y = map(int, demo.CLICKS[-1])
    assert found[y, x]
    assert 0.02 < found.mean() < 0.6
    for example in demo.EDITS:
        with Image.open(tmp_path / f"{example.task}.png") as picture:
            assert picture.size == size(example.image)
    with Image.open(tmp_path / "demo.png") as sheet:
        assert sheet.height > (1 + len(demo.EDITS)) * demo.PANEL
    last = done.stdout.partition("Stopping...")[2]
    for name in ("mask.png", "mask-overlay.png", *(f"{each.task}.png" for each in demo.EDITS)):
        assert name in last
    for phase in ("Python starts", "Triton starts", "denoising", "Triton stop"):
        assert phase in last
    assert "second click" in done.stdout
    assert last.rstrip().endswith(str(tmp_path / "demo.png"))


def test_the_sheet_shows_each_picture_in_its_shape() -> None:
    red, blue = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (40, 20), "blue")
    strips = [
        demo.Strip("one", [demo.Panel("input", red)]),
        demo.Strip("two", [demo.Panel("input", red), demo.Panel("result", blue)]),
    ]
    pixels = np.asarray(demo._sheet(strips))
    reds, blues = ((pixels == colour).all(axis=2) for colour in ((255, 0, 0), (0, 0, 255)))
    assert reds.sum() == 2 * demo.PANEL**2
    assert blues.sum() == demo.PANEL**2 // 2
    assert reds[:, : demo.PANEL + 2 * demo.GAP].sum() == reds.sum()
    assert not (pixels[-demo.GAP :] != 255).any()
