"""Owns colours and textures of the synthetic scenes, each drawn from a random generator."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def colour(rng: np.random.Generator) -> FloatArray:
    """Draw a colour of any hue, pale more often than vivid, bright more often than dark.

    Returns:
        float32 [3], RGB in 0..255.
    """
    hue = rng.integers(180)
    saturation, value = 255 * rng.beta(1.1, 2.0), 20 + 235 * rng.beta(1.4, 1.1)
    pixel = np.array([[[hue, saturation, value]]], np.uint8)
    drawn: FloatArray = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    return drawn


def similar(rng: np.random.Generator, to: FloatArray, spread: float) -> FloatArray:
    """Draw a colour whose channels differ from the given ones by about `spread`."""
    return np.clip(to + rng.normal(0, spread, 3), 0, 255).astype(np.float32)


def clouds(
    rng: np.random.Generator, height: int, width: int, octaves: int, cells: int
) -> FloatArray:
    """Draw smooth noise: random grids, each twice as fine and half as strong as the last.

    Args:
        rng: the source of randomness.
        height: rows, in pixels.
        width: columns, in pixels.
        octaves: how many grids.
        cells: cells along one side of the coarsest grid.

    Returns:
        float32 [height, width] in 0..1.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        nodes = cells * 2**octave + 1
        grid = rng.random((nodes, nodes), dtype=np.float32) * np.float32(0.55**octave)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total / sum(0.55**octave for octave in range(octaves)), 0, 1)


def texture(
    rng: np.random.Generator, height: int, width: int, base: FloatArray | None = None
) -> FloatArray:
    """Draw a textured surface: a base colour and a second one, mixed by a pattern.

    Args:
        rng: the source of randomness.
        height: rows, in pixels.
        width: columns, in pixels.
        base: RGB in 0..255; None: a colour is drawn.

    Returns:
        float32 [height, width, 3], RGB in 0..255.
    """
    first = colour(rng) if base is None else base
    kind = rng.random()
    if kind < 0.2:
        return np.broadcast_to(first, (height, width, 3)).copy()
    second = similar(rng, first, rng.uniform(6, 55)) if rng.random() < 0.8 else colour(rng)
    pattern = next(draw for limit, draw in _PATTERNS if kind < limit)
    return first + (second - first) * pattern(rng, height, width)[..., None]


def _ramp(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    along = _rotated_axes(rng, height, width)[0]
    return np.clip(along * rng.uniform(0.4, 1.5) + rng.uniform(0, 0.4), 0, 1)


def _clouds(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    return clouds(rng, height, width, int(rng.integers(1, 5)), int(rng.integers(2, 10)))


def _stripes(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    along = _rotated_axes(rng, height, width)[0]
    bend = rng.uniform(0, 3) * clouds(rng, height, width, 1, 3)
    waves = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(3, 30) * along + rng.uniform(0, 6) + bend)
    hard = rng.random() < 0.5
    stripes: FloatArray = (waves > 0.5 if hard else waves).astype(np.float32)
    return stripes


def _checks(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    along, across = _rotated_axes(rng, height, width)
    frequency = 2 * np.pi * rng.uniform(3, 14)
    board = np.sin(frequency * along) * np.sin(frequency * across) > 0
    squares: FloatArray = board.astype(np.float32)
    return squares


def _grain(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    noise = cv2.GaussianBlur(
        rng.random((height, width), dtype=np.float32), (0, 0), rng.uniform(0.5, 2.2)
    )
    contrasty: FloatArray = np.clip((noise - 0.5) * rng.uniform(2, 6) + 0.5, 0, 1)
    return contrasty


def _rotated_axes(
    rng: np.random.Generator, height: int, width: int
) -> tuple[FloatArray, FloatArray]:
    """Return two perpendicular coordinates of each pixel; the longer side has length 1."""
    angle = rng.uniform(0, 2 * np.pi)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    scale = np.float32(1 / max(height, width))
    y = np.arange(height, dtype=np.float32)[:, None] * scale
    x = np.arange(width, dtype=np.float32)[None] * scale
    return x * cosine + y * sine, y * cosine - x * sine


Pattern = Callable[[np.random.Generator, int, int], FloatArray]
# A pattern is taken where the draw from 0..1 is below its limit; `texture` draws flat surfaces.
_PATTERNS: tuple[tuple[float, Pattern], ...] = (
    (0.42, _ramp),
    (0.70, _clouds),
    (0.83, _stripes),
    (0.89, _checks),
    (1.00, _grain),
)
