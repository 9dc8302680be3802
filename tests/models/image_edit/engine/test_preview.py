import numpy as np
import pytest
import torch

from image_edit.engine.preview import PreviewMap


def test_colours_are_the_linear_map_of_each_position_clamped() -> None:
    factors = [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]
    latents = torch.stack([torch.full((4, 6), 0.25), torch.full((4, 6), 9.0)])
    pixels = PreviewMap(factors, [0.25, 0.0, -9.0]).render(latents)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (4, 6, 3)
    assert pixels[2, 3].tolist() == [128, 255, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_dtype_of_latents(dtype: torch.dtype) -> None:
    latents = torch.rand(2, 8, 8).to(dtype)
    preview = PreviewMap([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [0.0, 0.0, 0.0])
    assert preview.render(latents).shape == (8, 8, 3)
