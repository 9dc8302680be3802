"""What the profiles of smaller GPUs change, on the demo bundle: memory, and pictures slightly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from edit_bundle import Bundle, load_bundle
from edit_engine import EditEngine
from edit_int8 import Int8Linear

from .edits import picture
from .test_edit_engine import SHIFT, denoised, spec_of

if TYPE_CHECKING:
    from pathlib import Path

    from edit_conditioning import Pixels


def edited(bundle: Bundle, task_type: str = "removal", side: int = 64) -> Pixels:
    engine = EditEngine(bundle, condition_area=None, scheduler_shift=SHIFT)
    images = np.stack([picture(side, side, seed) for seed in range(2)])
    spec = spec_of(task_type=task_type, images=images, size=(side, side))
    return engine.decode(denoised(engine, spec))


def psnr(one: Pixels, other: Pixels) -> float:
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else np.inf


@pytest.fixture(scope="module")
def quantised(bundle_folder: Path) -> Bundle:
    return load_bundle(bundle_folder, "bfloat16", "cpu", int8=True)


def test_8_bits_are_what_is_kept(quantised: Bundle) -> None:
    layer = quantised.pipeline.transformer.transformer_blocks[0].attn.to_q
    assert layer.base_layer.weight.dtype is torch.int8
    assert {str(lora.weight.dtype) for lora in layer.lora_A.values()} == {"torch.bfloat16"}
    encoder = quantised.pipeline.text_encoder.model.language_model.layers[0].mlp.up_proj
    assert encoder.weight.dtype is torch.int8
    assert quantised.pipeline.vae.decoder.conv_in.weight.dtype is torch.bfloat16


@pytest.mark.parametrize("bias", [True, False])
def test_8_bits_are_near_to_what_they_stand_for(bias: bool) -> None:
    linear = torch.nn.Linear(64, 32, bias=bias)
    with torch.no_grad():
        linear.weight[3] = 0
        inputs = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
        expected = linear(inputs)
        found = Int8Linear(linear)(inputs)
    assert torch.linalg.norm(found - expected) < 0.01 * torch.linalg.norm(expected)
    assert torch.equal(found[:, 3], expected[:, 3])


def test_8_bits_change_the_picture_slightly(bundle_folder: Path, quantised: Bundle) -> None:
    one, other = edited(load_bundle(bundle_folder, "bfloat16", "cpu")), edited(quantised)
    assert 20 < psnr(one, other) < 60


def test_adapters_of_8_bit_weights_are_switched_back_and_forth(quantised: Bundle) -> None:
    removal, insertion = edited(quantised), edited(quantised, "insertion")
    assert psnr(removal, insertion) < 30
    assert np.array_equal(edited(quantised), removal)


def test_tiles_change_only_what_lies_near_their_seams(bundle: Bundle, bundle_folder: Path) -> None:
    tiled = load_bundle(bundle_folder, "float32", "cpu", vae_tiling=True)
    # A tile is 256 pixels wide.
    assert np.array_equal(edited(tiled, side=128), edited(bundle, side=128))
    one, other = edited(bundle, side=320), edited(tiled, side=320)
    assert 25 < psnr(one, other) < np.inf
