"""Owns bringing a generated part back into its picture, at the picture's own resolution."""

import numpy as np
from PIL import Image

from image_edit.conditions import Pixels, Size

BAND = 128
"""Rows that are worked on at once: a large picture in floats takes longest to allocate."""


def resized(pixels: Pixels, size: Size) -> Pixels:
    """Stretch a picture or mask to width and height; return the same array if it fits."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def blended(picture: Pixels, patch: Pixels, mask: Pixels) -> Pixels:
    """Lay a patch over a picture.

    Args:
        picture: uint8 [height, width, channels].
        patch: of the same shape.
        mask: 255 = patch, 0 = picture, soft; uint8 [height, width].

    Returns:
        uint8 [height, width, channels]; where the mask is 0, the picture's own values.
    """
    result = picture.copy()
    for top in range(0, len(picture), BAND):
        band = slice(top, top + BAND)
        if mask[band].any():
            below, above = picture[band].astype(np.float32), patch[band].astype(np.float32)
            mixed = below + mask[band, :, np.newaxis] / np.float32(255) * (above - below)
            result[band] = np.rint(mixed).astype(np.uint8)
    return result


def laid_over(below: Pixels, above: Pixels) -> tuple[Pixels, Pixels]:
    """Lay one transparency over another (Porter and Duff, 1984, "over").

    What is see-through below has no colour to mix with: its hidden one, often black, would show
    as a dark seam around what is laid over it.

    Args:
        below: alpha of the picture, uint8 [height, width], 255 = opaque.
        above: alpha of the patch, of the same shape.

    Returns:
        The alpha of both together, and the patch's part of their colour for `blended`.
    """
    own = above.astype(np.float32)
    both = own + below * (1 - own / np.float32(255))
    part = 255 * own / np.maximum(both, 1)
    return np.rint(both).astype(np.uint8), np.rint(part).astype(np.uint8)


def without_white(shown: Pixels, alpha: Pixels) -> Pixels:
    """Return the colours that look like `shown` where they lie on a white page.

    Args:
        shown: sRGB uint8 [height, width, 3].
        alpha: of the colours, uint8 [height, width]; where it is 0, no colour shows and all stay.

    Returns:
        sRGB uint8 [height, width, 3]: the nearest ones, because what lets white through cannot
        look darker than it lets it.
    """
    result = shown.copy()
    for top in range(0, len(shown), BAND):
        band = slice(top, top + BAND)
        partly = (alpha[band] > 0) & (alpha[band] < 255)
        own = alpha[band][partly, np.newaxis] / np.float32(255)
        colours = np.clip((shown[band][partly] - 255 * (1 - own)) / own, 0, 255)
        result[band][partly] = np.rint(colours).astype(np.uint8)
    return result
