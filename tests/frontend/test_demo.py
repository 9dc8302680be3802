from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from frontend import demo


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
