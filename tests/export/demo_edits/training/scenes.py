"""Owns the pictures that the tests of the VAE draw."""

import numpy as np
import torch

from export.demo_edits.training.vae import as_values
from export.scenes.edits import draw_scene

SIZE = 64


def scenes(first: int, count: int, size: int = SIZE) -> torch.Tensor:
    pictures = [draw_scene([11, first + index], size).picture for index in range(count)]
    return as_values(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
