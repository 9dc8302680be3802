"""Owns the edge picture, by which white balance keeps the scene's structure."""

import cv2
import numpy as np

from edit_conditions.images import Pixels
from edit_conditions.masks import grey


def canny(image: Pixels) -> Pixels:
    """Find the Canny edges of an RGB picture: uint8 [height, width], 0 or 255.

    A bilateral filter (diameter 9, sigmas 75) first removes noise and keeps the edges. The
    thresholds are 0.67 and 1.33 times the median grey.
    """
    smooth = cv2.bilateralFilter(grey(image), 9, 75, 75)
    median = float(np.median(smooth))
    edges: Pixels = cv2.Canny(smooth, 0.67 * median, 1.33 * median)
    return edges
