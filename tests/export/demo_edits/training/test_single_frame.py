"""One frame is computed as a picture, with the same result; several frames are refused."""

from typing import Any

import pytest
import torch

from export.demo_edits.training.single_frame import single_frame

from .scenes import scenes


def test_a_single_frame_costs_a_third_and_changes_nothing(vae: Any) -> None:
    pictures = scenes(1000, 2)[:, :, None]
    with torch.no_grad():
        whole = vae.encode(pictures).latent_dist.mode()
        decoded = vae.decode(whole).sample
        with single_frame():
            flat = vae.encode(pictures).latent_dist.mode()
            redecoded = vae.decode(flat).sample
    torch.testing.assert_close(flat, whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(redecoded, decoded, atol=1e-4, rtol=1e-4)


def test_several_frames_are_refused(vae: Any) -> None:
    with single_frame(), pytest.raises(ValueError, match="more than one frame"):
        vae.quant_conv(torch.zeros(1, 32, 2, 8, 8))
