"""Owns a smooth change of colours: fitted on a small edit, applied to the picture at full size."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from image_edit.conditions import Pixels
from image_edit.paste import without_white
from model_kit.colour import from_srgb

Floats = npt.NDArray[np.float32]

GAIN_CELLS = 8
"""Cells of the longer side of the gain map: light changes over a room, not over an edge."""
MAX_GAIN = 1.5
"""Of the gain map, either way: more is not light but another picture."""
ROUNDS = 12
"""Of the robust fit; each weighs down what the one before could not explain."""
RIDGE = 1e-3
"""Pull towards no change, by the mean energy of the pixels: a grey picture fixes no matrix."""
TINY = 1e-6
"""Beside sums of light: a black picture has none."""
CLIPPED = 250
"""From this shade on a channel may have been brighter: JPEG and resizing spread what is clipped."""
PARTLY_CLIPPED = 0.3
"""What a pixel with a clipped channel counts. Strong light clips one channel nearly everywhere:
the few other pixels must not decide for all, nor clipped ones against many that are not."""
GLARE = 0.02
"""What a pixel beside blown white counts: its colour is half the white's."""
GLARE_REACH = 2
"""Pixels around blown white: what resizing and the coarser colours of a JPEG mix with it."""
BLACK = 2
"""Up to this shade of the lightest channel a pixel has no colour."""
PALE = 245
"""From this shade of the darkest channel on, a change fades: blown white stays white."""
BAND = 256
"""Rows that are computed at once: the picture's floats need not lie in memory together."""


@dataclass(frozen=True, eq=False)
class ColourChange:
    """In linear light: result = gains(x, y) * (matrix @ source), but white stays."""

    matrix: Floats
    """[3, 3], of linear light."""
    gains: Floats
    """[rows, columns, 3], of the whole picture, however large that is."""

    def apply(self, picture: Pixels) -> Pixels:
        """Change a picture's colours; its detail stays.

        Args:
            picture: RGB uint8 [height, width, 3] in the profile of the fit.

        Returns:
            uint8 of the same shape and profile.
        """
        height, width = picture.shape[:2]
        result = np.empty_like(picture)
        # One row of the map for each row of the picture; its columns are stretched per band.
        rows = cv2.resize(
            self.gains, (self.gains.shape[1], height), interpolation=cv2.INTER_LINEAR
        ).reshape(height, -1, 3)
        for top in range(0, height, BAND):
            band = picture[top : top + BAND]
            gains = cv2.resize(
                rows[top : top + BAND], (width, len(band)), interpolation=cv2.INTER_LINEAR
            )
            linear = linear_of(band)
            changed = (linear @ self.matrix.T) * gains
            darkest = np.minimum(np.minimum(band[..., 0], band[..., 1]), band[..., 2])
            if (darkest > PALE).any():
                changed = linear + _CHANGED[darkest][..., np.newaxis] * (changed - linear)
            result[top : top + BAND] = srgb_of(changed)
        return result


def fit(
    before: Pixels, after: Pixels, alpha: Pixels | None = None, profile: bytes | None = None
) -> ColourChange:
    """Fit the smooth change of colours that leads from one picture to the other.

    What the change cannot explain, such as detail that a model draws itself, counts little: each
    pixel's weight falls with its error (iteratively reweighted least squares, Cauchy weights).
    Black and blown white tell nothing of the light and do not count, nor does the white that shows
    where the picture is transparent. Where nothing counts, nothing changes.

    Args:
        before: sRGB uint8 [height, width, 3].
        after: the same scene in other light, of the same size.
        alpha: of both, which then lie on white; uint8 [height, width]. None: opaque.
        profile: of the RGB pictures that will be changed; None: sRGB.
    """
    # In sRGB, because in a wider space nothing that sRGB clips is at its end.
    confidence = _confidence(before, after)
    if alpha is not None:
        before, after = without_white(before, alpha), without_white(after, alpha)
    counts = confidence > 0
    if not counts.any():
        return ColourChange(np.eye(3, dtype=np.float32), np.ones((1, 1, 3), np.float32))
    if profile is not None:
        before, after = from_srgb(before, profile), from_srgb(after, profile)
    source, target = linear_of(before), linear_of(after)
    weights = confidence
    matrix = np.eye(3, dtype=np.float32)
    for _ in range(ROUNDS):
        matrix = _least_squares(source, target, weights)
        # Relative to the pixel's own light, else bright areas alone would decide.
        light = target.mean(axis=2) + 0.02
        errors = np.linalg.norm(source @ matrix.T - target, axis=2) / light
        scale = max(1e-4, 1.4826 * float(np.median(errors[counts])))
        weights = confidence / (1 + (errors / (2 * scale)) ** 2)
    return ColourChange(matrix, _gains(source @ matrix.T, target, weights.astype(np.float32)))


def linear_of(picture: Pixels) -> Floats:
    """Convert sRGB uint8 to linear light, float32 0..1 (IEC 61966-2-1)."""
    linear: Floats = _TO_LINEAR[picture]
    return linear


def srgb_of(linear: Floats) -> Pixels:
    """Convert linear light to sRGB uint8; what lies outside 0..1 is clipped."""
    # A table, because `power` takes ten times as long; its steps are finer than a shade's.
    encoded: Pixels = _TO_SRGB[np.rint(np.clip(linear, 0, 1) * 65535).astype(np.uint16)]
    return encoded


def _linear(values: npt.NDArray[np.float64]) -> Floats:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )


def _encoded(values: npt.NDArray[np.float64]) -> Pixels:
    encoded = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    shades: Pixels = np.rint(encoded * 255).astype(np.uint8)
    return shades


_TO_LINEAR = _linear(np.arange(256) / 255)
_TO_SRGB = _encoded(np.arange(65536) / 65535)
_CHANGED = np.clip((255 - np.arange(256, dtype=np.float32)) / (255 - PALE), 0, 1)
"""How much of a change a pixel takes, by its darkest channel."""


def _confidence(before: Pixels, after: Pixels) -> Floats:
    """Return how much each pixel tells of the change: float32 [height, width], 0..1."""
    lightest, darkest = before.max(axis=2), before.min(axis=2)
    blown = (darkest >= CLIPPED).astype(np.uint8)
    around = np.ones((2 * GLARE_REACH + 1, 2 * GLARE_REACH + 1), np.uint8)
    confidence = np.ones(blown.shape, np.float32)
    confidence[(lightest >= CLIPPED) | (after.max(axis=2) >= CLIPPED)] = PARTLY_CLIPPED
    confidence[cv2.dilate(blown, around) > 0] = GLARE
    confidence[(blown > 0) | (lightest <= BLACK)] = 0
    return confidence


def _least_squares(source: Floats, target: Floats, weights: Floats) -> Floats:
    x, y = source.reshape(-1, 3).astype(np.float64), target.reshape(-1, 3).astype(np.float64)
    weighted = x * weights.reshape(-1, 1)
    covariance = x.T @ weighted
    ridge = (RIDGE * np.trace(covariance) / 3 + TINY) * np.eye(3)
    # Ridge towards the grey scaling that fits best, so that a plain picture keeps its hue.
    gain = float(((weighted * y).sum() + TINY) / ((weighted * x).sum() + TINY))
    solved = np.linalg.solve(covariance + ridge, weighted.T @ y + ridge * gain)
    matrix: Floats = solved.T.astype(np.float32)
    return matrix


def _gains(source: Floats, target: Floats, weights: Floats) -> Floats:
    """Fit a coarse and smooth map of gains to what the matrix does not explain."""
    height, width = weights.shape
    longest = max(height, width)
    size = tuple(max(2, round(GAIN_CELLS * side / longest)) for side in (width, height))
    weigh = weights[..., np.newaxis]
    light, wanted = (
        cv2.resize(picture * weigh, size, interpolation=cv2.INTER_AREA)
        for picture in (source, target)
    )
    # Cells with little to go by keep a gain near 1.
    floor = 0.25 * max(1e-6, float((source * weigh).mean()))
    gains = (wanted + floor) / (light + floor)
    smooth = cv2.GaussianBlur(gains, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)
    bounded: Floats = np.clip(smooth, 1 / MAX_GAIN, MAX_GAIN).astype(np.float32)
    return bounded
