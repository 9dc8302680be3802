"""Owns the removal fill: how the picture may look without the masked object."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL.Image import Resampling

from edit_conditions.images import Pixels, resize, size_of
from edit_conditions.masks import touched

# (RGB [height, width, 3], mask of 0 or 255 [height, width]) -> RGB of the same size.
Inpaint = Callable[[Pixels, Pixels], Pixels]

# Longest side to inpaint: the largest size of input_quality `resized`. Telea takes up to 3.5 s
# there on one core, and its time grows faster than the area.
MAX_SIDE = 2048
# Grey fills a picture that is masked everywhere.
PLAIN = 127


def fill_masked(image: Pixels, mask: Pixels, inpaint: Inpaint) -> Pixels:
    """Replace the masked pixels and no others.

    A picture with a side over MAX_SIDE is inpainted at a smaller scale. The pixels outside the
    mask stay as sharp as they were.

    Args:
        image: RGB, uint8 [height, width, 3].
        mask: 255 = replace, else 0; uint8 [height, width].
        inpaint: fills the mask of a picture, at that picture's size.
    """
    longest = max(size_of(image))
    if longest <= MAX_SIDE:
        filled = _inpainted(image, mask, inpaint)
    else:
        width, height = (max(1, length * MAX_SIDE // longest) for length in size_of(image))
        # Else the object would leak into the fill.
        small_mask = touched(mask, (width, height))
        small_image = resize(image, (width, height), Resampling.LANCZOS)
        small = _inpainted(small_image, small_mask, inpaint)
        filled = resize(small, size_of(image), Resampling.LANCZOS)
    return np.where(mask[:, :, None] > 0, filled, image)


def _inpainted(image: Pixels, mask: Pixels, inpaint: Inpaint) -> Pixels:
    if mask.all():
        # Nothing is known, and an inpainter would hand the object back.
        return np.full_like(image, PLAIN)
    return inpaint(image, mask)


def telea(image: Pixels, mask: Pixels) -> Pixels:
    """Inpaint by fast marching, radius 3 (A. Telea, J. Graphics Tools 9(1), 2004)."""
    filled: Pixels = cv2.inpaint(image, mask, 3, cv2.INPAINT_TELEA)
    return filled


def load_lama(path: Path) -> Inpaint:
    """Load a big-lama TorchScript file (Suvorov et al., WACV 2022) on the CPU.

    The module takes float32 RGB [1, 3, s, s] in 0..1 and a mask [1, 1, s, s] of 0 or 1, with
    s a multiple of 8, and answers RGB like its first input.

    Raises:
        ValueError: not a TorchScript file.
    """
    import torch  # imported late: Telea needs no torch, and its import takes seconds

    try:
        module = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ValueError(f"LAMA_MODEL: {path} is not a TorchScript file") from error

    def lama(image: Pixels, mask: Pixels) -> Pixels:
        width, height = size_of(image)
        side = -(-max(width, height) // 8) * 8
        square = np.zeros((side, side, 4), dtype=np.float32)
        square[:height, :width, :3] = image / np.float32(255)
        square[:height, :width, 3] = mask > 0
        batch = torch.from_numpy(square).permute(2, 0, 1)[None]
        with torch.inference_mode():
            result = module(batch[:, :3], batch[:, 3:])[0].clamp(0, 1)
        pixels: Pixels = result.mul(255).round().byte().permute(1, 2, 0).numpy()
        return pixels[:height, :width]

    return lama
