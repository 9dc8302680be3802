import io

import numpy as np
import pytest
import torch
from PIL import Image

from image_edit.engine.preview import PreviewMap


def test_colours_are_the_linear_map_of_each_position_clamped() -> None:
    factors = [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]
    latents = torch.stack([torch.full((4, 6), 0.25), torch.full((4, 6), 9.0)])
    image = Image.open(io.BytesIO(PreviewMap(factors, [0.25, 0.0, -9.0]).render(latents)))
    assert image.format == "WEBP"
    assert image.size == (6, 4)
    expected = np.array([0.5 * 255, 255, 0])
    assert np.abs(np.asarray(image.convert("RGB"))[2, 3] - expected).max() < 8  # lossy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_dtype_of_latents(dtype: torch.dtype) -> None:
    latents = torch.rand(2, 8, 8).to(dtype)
    preview = PreviewMap([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [0.0, 0.0, 0.0])
    assert Image.open(io.BytesIO(preview.render(latents))).size == (8, 8)
