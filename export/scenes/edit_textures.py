"""Owns the colours, surfaces and outlines that the scenes of the demo's edits are drawn from."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]

SHAPES = ("ball", "box", "star", "triangle", "pebble")
# Fraction of the picture's side. Latents have an eighth of the side and lose finer detail.
FINEST_STRIPE = 1 / 14
# cv2.fillPoly takes fixed-point coordinates with this many binary places.
_PLACES = 4


class Paint(NamedTuple):
    """A colour with its name."""

    name: str
    rgb: FloatArray
    """float32 [3], 0..255."""


# Hue in degrees; lowest and highest saturation and value, 0..1.
_PAINTS = {
    "red": (0, (0.75, 1.0), (0.6, 0.95)),
    "orange": (28, (0.8, 1.0), (0.8, 1.0)),
    "yellow": (54, (0.7, 1.0), (0.8, 1.0)),
    "green": (125, (0.6, 1.0), (0.35, 0.8)),
    "cyan": (182, (0.6, 1.0), (0.6, 0.95)),
    "blue": (222, (0.65, 1.0), (0.5, 0.95)),
    "purple": (278, (0.5, 0.9), (0.45, 0.85)),
    "pink": (328, (0.35, 0.7), (0.8, 1.0)),
    "white": (0, (0.0, 0.05), (0.92, 1.0)),
    "black": (0, (0.0, 0.2), (0.05, 0.15)),
}


def object_names() -> list[str]:
    """List every colour and shape in words, such as `red ball`."""
    return [f"{colour} {shape}" for colour in _PAINTS for shape in SHAPES]


def paint(rng: np.random.Generator) -> Paint:
    """Draw a colour that has a common name."""
    name = list(_PAINTS)[int(rng.integers(len(_PAINTS)))]
    hue, saturation, value = _PAINTS[name]
    return Paint(
        name, _rgb(hue + rng.uniform(-8, 8), rng.uniform(*saturation), rng.uniform(*value))
    )


def surface_colour(rng: np.random.Generator) -> FloatArray:
    """Draw the colour of a wall, floor or sky: pale, of any hue, never near black.

    Returns:
        float32 [3], RGB in 0..255.
    """
    return _rgb(rng.uniform(0, 360), 0.4 * rng.beta(1, 3), rng.uniform(0.35, 0.95))


def clouds(rng: np.random.Generator, size: int, cells: int, octaves: int) -> FloatArray:
    """Draw smooth noise: random grids, each twice as fine and half as strong as the last.

    Args:
        rng: the source of randomness.
        size: side, in pixels.
        cells: cells along one side of the coarsest grid.
        octaves: how many grids.

    Returns:
        float32 [size, size], about 0..1.
    """
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        nodes = cells * 2**octave + 1
        grid = rng.random((nodes, nodes), dtype=np.float32) * np.float32(0.5**octave)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(total / sum(0.5**octave for octave in range(octaves)), 0, 1)


def surface(rng: np.random.Generator, size: int) -> FloatArray:
    """Draw a background: one or two textured surfaces under uneven light.

    Returns:
        float32 [size, size, 3], RGB in 0..255.
    """
    canvas = _textured(rng, size)
    if rng.random() < 0.4:  # a table's edge, a horizon, a corner
        along = ramp(rng, size) - np.float32(rng.uniform(0.3, 0.7))
        softness = np.float32(rng.choice([2, 2, 20]) / size)
        fraction = np.clip(along / softness + 0.5, 0, 1)[..., None]
        canvas += fraction * (_textured(rng, size) - canvas)
    light = 1 + np.float32(rng.uniform(0.1, 0.5)) * (ramp(rng, size) - np.float32(0.5))
    return np.clip(canvas * light[..., None], 0, 255)


def ramp(rng: np.random.Generator, size: int) -> FloatArray:
    """Draw a linear ramp in a random direction.

    Returns:
        float32 [size, size], 0..1.
    """
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    along = axis[:, None] * np.float32(np.sin(angle)) + axis[None] * np.float32(np.cos(angle))
    return np.clip(along + np.float32(0.5), 0, 1)


def coverage(points: Points, size: int) -> FloatArray:
    """Fill a closed polygon, anti-aliased.

    Args:
        points: [n, 2], x and y in pixels.
        size: side of the picture, in pixels.

    Returns:
        float32 [size, size]: the covered fraction of each pixel, 0..1.
    """
    fine = np.zeros((2 * size, 2 * size), np.uint8)
    fixed = np.round(points * (2 << _PLACES)).astype(np.int32)
    cv2.fillPoly(fine, [fixed], 255, cv2.LINE_AA, _PLACES)
    covered = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
    fraction: FloatArray = covered.astype(np.float32) / np.float32(255)
    return fraction


def outline(rng: np.random.Generator, shape: str) -> Points:
    """Draw the outline of one of SHAPES around the origin, within -1..1, turned at random.

    Returns:
        float64 [n, 2], x and y.
    """
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    if shape == "ball":
        points = _polar(np.ones(64), turn)
    elif shape == "box":
        width, height = rng.uniform(0.6, 0.85, 2)
        points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width, height]
    elif shape == "star":
        tips = int(rng.integers(4, 7))
        radius = np.where(np.arange(2 * tips) % 2, rng.uniform(0.5, 0.7), 1.0)
        points = _polar(radius, np.linspace(0, 2 * np.pi, 2 * tips, endpoint=False))
    elif shape == "triangle":
        points = _polar(np.ones(3), np.linspace(0, 2 * np.pi, 3, endpoint=False))
    else:
        radius = np.ones(64)
        for frequency in (2, 3, 4):
            radius += rng.normal(0, 0.25 / frequency) * np.cos(
                frequency * turn + rng.uniform(0, 2 * np.pi)
            )
        radius = np.clip(radius, 0.3, 2)
        points = _polar(radius / radius.max(), turn)
    angle = rng.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    turned: Points = points @ np.array([[cosine, sine], [-sine, cosine]])
    return turned


def _textured(rng: np.random.Generator, size: int) -> FloatArray:
    first = surface_colour(rng)
    second = np.clip(first + rng.normal(0, 1, 3) * rng.uniform(5, 28), 0, 255).astype(np.float32)
    kind = rng.random()
    if kind < 0.3:
        fraction = ramp(rng, size)
    elif kind < 0.7:
        fraction = clouds(rng, size, int(rng.integers(1, 6)), int(rng.integers(1, 4)))
    elif kind < 0.85:
        bend = np.float32(rng.uniform(0, 2)) * clouds(rng, size, 2, 1)
        waves = np.float32(rng.uniform(2, 0.5 / FINEST_STRIPE)) * ramp(rng, size)
        fraction = np.float32(0.5) + np.float32(0.35) * np.sin(2 * np.pi * waves + bend)
    else:
        grain = rng.random((size, size), dtype=np.float32)
        grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(1, 3))
        fraction = np.clip((grain - np.float32(0.5)) * np.float32(3) + np.float32(0.5), 0, 1)
    return first + (second - first) * fraction[..., None].astype(np.float32)


def _polar(radius: Points, angle: Points) -> Points:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _rgb(hue: float, saturation: float, value: float) -> FloatArray:
    pixel = np.array([[[hue % 360, saturation, value]]], np.float32)
    rgb: FloatArray = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * np.float32(255)
    return rgb
