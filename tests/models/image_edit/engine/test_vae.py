"""The VAE of single pictures against diffusers' own, on the demo bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import AutoencoderKLQwenImage

from image_edit.engine import vae as edit_vae
from image_edit.engine.vae import PictureConv, keep_to_pictures, work_on_tiles

if TYPE_CHECKING:
    from pathlib import Path

# Of values within -1..1 in float32.
ROUNDING = 5e-6


def load(folder: Path, dtype: torch.dtype) -> Any:
    return AutoencoderKLQwenImage.from_pretrained(
        folder / "pipeline" / "vae", dtype=dtype, local_files_only=True
    ).eval()


@torch.inference_mode()
def there_and_back(vae: Any, height: int = 72, width: int = 96) -> tuple[torch.Tensor, ...]:
    """Return the latents of a random picture, and the picture of random latents."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, 1, height, width, generator=generator) * 2 - 1
    latents = torch.randn(1, 16, 1, height // 8, width // 8, generator=generator)
    return (
        vae.encode(picture.to(vae.dtype)).latent_dist.mode(),
        vae.decode(latents.to(vae.dtype)).sample,
    )


def with_small_tiles(vae: Any) -> Any:
    vae.enable_tiling(64, 64, 48, 48)
    return vae


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tiled", [False, True])
def test_without_its_feature_cache_the_vae_computes_the_same_bits(
    bundle_folder: Path, dtype: torch.dtype, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, changed = load(bundle_folder, dtype), load(bundle_folder, dtype)
    # Leaves the convolutions as they are.
    monkeypatch.setattr(edit_vae, "QwenImageCausalConv3d", torch.nn.Bilinear)
    keep_to_pictures(changed)
    if tiled:
        with_small_tiles(own)
        with_small_tiles(changed)
    for expected, found in zip(there_and_back(own), there_and_back(changed), strict=True):
        assert torch.equal(found, expected)
    assert all(each is None for each in changed._feat_map + changed._enc_feat_map)


@pytest.mark.parametrize("tiled", [False, True])
def test_two_dimensional_convolutions_change_rounding_alone(
    bundle_folder: Path, tiled: bool
) -> None:
    own, changed = (load(bundle_folder, torch.float32) for _ in range(2))
    keep_to_pictures(changed)
    assert not any(isinstance(part, torch.nn.Conv3d) for part in changed.modules())
    if tiled:
        with_small_tiles(own)
        with_small_tiles(changed)
    for expected, found in zip(there_and_back(own), there_and_back(changed), strict=True):
        assert (found - expected).abs().max() < ROUNDING


def test_a_third_of_the_weights_stays(bundle_folder: Path) -> None:
    vae = load(bundle_folder, torch.float32)
    before = sum(weight.nbytes for weight in vae.parameters())
    keep_to_pictures(vae)
    assert sum(weight.untyped_storage().nbytes() for weight in vae.parameters()) < 0.4 * before


def test_tiles_are_for_pictures_larger_than_one(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edit_vae, "TILE", 96)
    monkeypatch.setattr(edit_vae, "TILE_DISTANCE", 72)
    whole, tiled = (load(bundle_folder, torch.float32) for _ in range(2))
    keep_to_pictures(whole)
    keep_to_pictures(tiled)
    work_on_tiles(tiled)
    for expected, found in zip(there_and_back(whole), there_and_back(tiled), strict=True):
        assert torch.equal(found, expected)
    larger = there_and_back(whole, 128, 128), there_and_back(tiled, 128, 128)
    for expected, found in zip(*larger, strict=True):
        assert found.shape == expected.shape
        assert 0 < (found - expected).abs().mean() < 0.05


def test_a_video_is_refused(bundle_folder: Path) -> None:
    vae = load(bundle_folder, torch.float32)
    keep_to_pictures(vae)
    with pytest.raises(ValueError, match="more than one frame"):
        vae.decode(torch.zeros(1, 16, 2, 8, 8))
    assert isinstance(vae.quant_conv, PictureConv)
