"""Owns the scenes of the demo's edits: a background, an object with its mask, a cast of light."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from export.scenes.edit_textures import (
    SHAPES,
    FloatArray,
    clouds,
    coverage,
    outline,
    paint,
    ramp,
    surface,
)

Pixels = npt.NDArray[np.uint8]

# Smallest and largest radius of an object, as fractions of the side.
RADII = (0.13, 0.27)
# An object that differs less than this on average from what it covers cannot be seen.
MIN_CONTRAST = 55.0
PHOTOGRAPH_FRACTION = 0.15
# Logarithms of gains: of red against blue (smallest, largest), and of both against green.
WARMTH, TINT = (0.12, 0.42), 0.12


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture of one object, and the same place without the object."""

    picture: Pixels
    """RGB uint8 [size, size, 3]."""
    background: Pixels
    """RGB uint8 [size, size, 3]."""
    mask: Pixels
    """uint8 [size, size]: how much of a pixel the object covers, 255 = all; the rim is soft."""
    name: str
    """Colour and shape in words, such as `red ball`."""
    centre: tuple[float, float]
    """Centre of the object, x and y in pixels."""
    radius: float
    """Radius of the object, in pixels."""


def draw_scene(
    seed: Sequence[int],
    size: int,
    photographs: Sequence[Pixels] = (),
    photograph_fraction: float = PHOTOGRAPH_FRACTION,
) -> Scene:
    """Draw a scene.

    Args:
        seed: names the scene; the same seed, size and photographs give the same pixels.
        size: side, in pixels.
        photographs: RGB uint8 [height, width, 3] each.
        photograph_fraction: fraction of the backgrounds that are cut from photographs, 0..1.
    """
    rng = np.random.default_rng(list(seed))
    if photographs and rng.random() < photograph_fraction:
        background = _cut(rng, photographs[int(rng.integers(len(photographs)))], size)
    else:
        background = surface(rng, size)
    for _ in range(8):
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        radius = float(rng.uniform(*RADII)) * size
        x, y = (float(place) for place in rng.uniform(radius + 2, size - radius - 2, 2))
        alpha = coverage(outline(rng, shape) * radius + [x, y], size)
        colour = paint(rng)
        painted = _painted(rng, colour.rgb, alpha, shape)
        difference = np.abs(painted - background).mean(axis=2)
        if (difference * alpha).sum() / alpha.sum() > MIN_CONTRAST:
            break
    picture = background + alpha[..., None] * (painted - background)
    return Scene(
        picture=as_pixels(picture),
        background=as_pixels(background),
        mask=as_pixels(alpha * 255),
        name=f"{colour.name} {shape}",
        centre=(x, y),
        radius=radius,
    )


def cast(seed: Sequence[int], picture: Pixels) -> Pixels:
    """Put a picture under warm or cold, greenish or pinkish light.

    Args:
        seed: names the light.
        picture: RGB uint8 [height, width, 3].

    Returns:
        RGB uint8 of the same shape, about as bright; values above 255 are clipped.
    """
    rng = np.random.default_rng(list(seed))
    warmth = rng.uniform(*WARMTH) * rng.choice([-1, 1])
    tint = rng.uniform(-TINT, TINT)
    gains = np.exp([warmth + tint / 2, -tint, -warmth + tint / 2])
    gains /= gains @ [0.299, 0.587, 0.114]
    return as_pixels(picture * gains.astype(np.float32))


def extract(picture: Pixels, mask: Pixels) -> Pixels:
    """Cut the object out onto a white square, as extract-object gives a reference.

    Args:
        picture: RGB uint8 [height, width, 3].
        mask: uint8 [height, width], not empty.

    Returns:
        RGB uint8 [side, side, 3], where side is the picture's longer side.
    """
    left, top, width, height = cv2.boundingRect((mask > 128).astype(np.uint8))
    box = slice(top, top + height), slice(left, left + width)
    side = max(picture.shape[:2])
    scale = side / max(width, height)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    cropped = cv2.resize(picture[box], size, interpolation=cv2.INTER_LINEAR)
    alpha = cv2.resize(mask[box], size, interpolation=cv2.INTER_LINEAR)[..., None] / np.float32(255)
    square = np.full((side, side, 3), 255, np.uint8)
    x, y = (side - size[0]) // 2, (side - size[1]) // 2
    square[y : y + size[1], x : x + size[0]] = as_pixels(255 + alpha * (cropped - np.float32(255)))
    return square


def as_pixels(values: npt.NDArray[Any]) -> Pixels:
    """Round and clips values of 0..255 to uint8."""
    rounded: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


def _painted(
    rng: np.random.Generator, rgb: FloatArray, alpha: FloatArray, shape: str
) -> FloatArray:
    """Draw an object's surface: its colour, marbled, lit from one side, round for a ball."""
    size = len(alpha)
    marbling = 1 + np.float32(rng.uniform(0, 0.25)) * (clouds(rng, size, 6, 2) - np.float32(0.5))
    light = 1 + np.float32(rng.uniform(0.2, 0.8)) * (ramp(rng, size) - np.float32(0.5))
    if shape in ("ball", "pebble"):
        depth = cv2.distanceTransform((alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
        light *= np.float32(0.6) + np.float32(0.45) * np.sqrt(depth / max(1.0, depth.max()))
    painted: FloatArray = np.clip(rgb * (marbling * light)[..., None], 0, 255)
    return painted


def _cut(rng: np.random.Generator, photograph: Pixels, size: int) -> FloatArray:
    height, width = photograph.shape[:2]
    side = int(min(height, width) * rng.uniform(0.4, 1))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    cut = photograph[top : top + side, left : left + side]
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    scaled: Pixels = cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA)
    return scaled.astype(np.float32)
