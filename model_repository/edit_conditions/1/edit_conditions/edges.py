"""The edge picture that white balance keeps the scene's structure by."""

import cv2
import numpy as np

from edit_conditions.images import Pixels
from edit_conditions.masks import grey


def canny(image: Pixels) -> Pixels:
    """Canny edges of an RGB picture, uint8 [height, width], 0 or 255.

    The thresholds follow the picture, 0.67 and 1.33 of the median grey, after a bilateral
    filter (diameter 9, sigmas 75) has removed noise and kept the edges.
    """
    smooth = cv2.bilateralFilter(grey(image), 9, 75, 75)
    median = float(np.median(smooth))
    edges: Pixels = cv2.Canny(smooth, 0.67 * median, 1.33 * median)
    return edges
