"""A VAE that was started and not trained."""

from typing import Any

import pytest
import torch

from export.demo_edits.pipeline import build_pipeline
from export.demo_edits.training import vae_start
from export.demo_edits.training.single_frame import single_frame

from .scenes import scenes


@pytest.fixture(scope="module")
def vae() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = build_pipeline().vae
    with single_frame():
        vae_start.start(vae, scenes(0, 60), torch.Generator().manual_seed(0))
    return vae
