"""Owns the measures that compare an edit with its truth."""

import math

import numpy as np
import numpy.typing as npt

from export.scenes.edits import Pixels

Region = npt.NDArray[np.bool_]


def psnr(picture: Pixels, truth: Pixels, where: Region | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite where nothing differs.

    Args:
        picture: RGB uint8 [height, width, 3].
        truth: of the same shape.
        where: bool [height, width], the pixels that count; None: all.
    """
    squared = (picture.astype(np.float64) - truth) ** 2
    error = float(squared.mean() if where is None else squared[where].mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def angular_error(picture: Pixels, truth: Pixels) -> float:
    """Return the mean angle between the colours of two pictures as RGB vectors, in degrees.

    A pixel that is black in either picture does not count, because black has no direction.
    """
    first, second = (pixels.reshape(-1, 3).astype(np.float64) for pixels in (picture, truth))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosine = (first * second).sum(axis=1)[lengths > 0] / lengths[lengths > 0]
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())


def colour_difference(picture: Pixels, truth: Pixels, where: Region) -> float:
    """Return how far the mean colours of a region differ, 0..255, in the most different channel."""
    return float(np.abs(picture[where].mean(axis=0) - truth[where].mean(axis=0)).max())
