"""Owns outlines of the objects in synthetic scenes: closed polygons, filled or cut out."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
# cv2.fillPoly takes fixed-point coordinates with this many binary places.
_PLACES = 4


@dataclass(frozen=True)
class Part:
    """One closed polygon of an outline."""

    points: Points
    """float64 [n, 2], x and y around the centre, mostly in -1..1."""
    filled: bool = True
    """False cuts the polygon out of the parts before it."""


def outline(rng: np.random.Generator) -> list[Part]:
    """Draw an outline: round, angular, blob, star, silhouette, ring, cup, stroke or a union."""
    kind = rng.random()
    return next(draw for limit, draw in _KINDS if kind < limit)(rng)


def coverage(parts: list[Part], height: int, width: int) -> FloatArray:
    """Paint polygons, anti-aliased.

    Args:
        parts: polygons, their points in pixels of the picture.
        height: rows of the picture.
        width: columns of the picture.

    Returns:
        float32 [height, width]: the covered fraction of each pixel, 0..1.
    """
    fine = np.zeros((2 * height, 2 * width), np.uint8)
    for part in parts:
        fixed = np.round(part.points * (2 << _PLACES)).astype(np.int32)
        cv2.fillPoly(fine, [fixed], 255 if part.filled else 0, cv2.LINE_AA, _PLACES)
    covered: FloatArray = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return covered.astype(np.float32) / 255


def _turn(count: int = 72) -> Points:
    return np.linspace(0, 2 * np.pi, count, endpoint=False)


def _polar(radius: Points, angle: Points, flatness: float = 1.0) -> Points:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle) * flatness], axis=1)


def _superellipse(rng: np.random.Generator) -> list[Part]:
    power = 2 / rng.choice([1, 2, 2, 2, 3, 5, 8])
    cosine, sine = np.cos(_turn()), np.sin(_turn())
    x, y = np.sign(cosine) * abs(cosine) ** power, np.sign(sine) * abs(sine) ** power
    return [Part(np.stack([x, y * rng.uniform(0.3, 1)], axis=1))]


def _blob(rng: np.random.Generator) -> list[Part]:
    radius = np.ones(72)
    for frequency in range(2, int(rng.integers(4, 9))):
        radius += rng.normal(0, 0.45 / frequency) * np.cos(
            frequency * _turn() + rng.uniform(0, 2 * np.pi)
        )
    radius = np.clip(radius, 0.2, 2)
    return [Part(_polar(radius / radius.max(), _turn(), rng.uniform(0.5, 1)))]


def _polygon(rng: np.random.Generator) -> list[Part]:
    corners = int(rng.integers(3, 8))
    angle = _turn(corners)
    if rng.random() < 0.5:
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    return [Part(_polar(rng.uniform(0.65, 1, corners), angle))]


def _star(rng: np.random.Generator) -> list[Part]:
    tips = int(rng.integers(4, 8))
    radius = np.where(np.arange(2 * tips) % 2, rng.uniform(0.35, 0.7), 1.0)
    return [Part(_polar(radius, _turn(2 * tips)))]


def _silhouette(rng: np.random.Generator) -> list[Part]:
    """Draw two mirrored profiles, as bottles, vases, rockets and people have."""
    knots = int(rng.integers(4, 9))
    widths = rng.uniform(0.1, 0.6, knots)
    if rng.random() < 0.4:
        widths[0] *= 0.1
    y = np.linspace(-1, 1, 36)
    profile = np.interp(y, np.linspace(-1, 1, knots), widths)
    if rng.random() < 0.6:
        profile = np.convolve(np.pad(profile, 3, mode="edge"), np.ones(7) / 7, "valid")
    left, right = np.stack([-profile, y], axis=1), np.stack([profile, y], axis=1)
    return [Part(np.concatenate([right, left[::-1]]))]


def _ring(rng: np.random.Generator) -> list[Part]:
    edge = _polar(np.ones(72), _turn(), rng.uniform(0.6, 1))
    return [Part(edge), Part(edge * rng.uniform(0.3, 0.75), filled=False)]


def _cup(rng: np.random.Generator) -> list[Part]:
    body = _polar(np.ones(72), _turn(), rng.uniform(0.6, 1)) * [0.75, 0.9]
    handle = _polar(np.ones(72), _turn()) * 0.45 + [0.75, 0]
    return [Part(handle), Part(handle * 0.6 + [0.3, 0], filled=False), Part(body)]


def _stroke(rng: np.random.Generator) -> list[Part]:
    knots = np.pad(rng.uniform(-1, 1, (5, 2)), ((1, 1), (0, 0)), mode="edge")
    smooth = 0.25 * knots[:-2] + 0.5 * knots[1:-1] + 0.25 * knots[2:]
    places = np.linspace(0, 4, 30)
    line = np.stack([np.interp(places, np.arange(5), smooth[:, axis]) for axis in (0, 1)], axis=1)
    along = np.gradient(line, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-6
    normal *= rng.uniform(0.06, 0.2)
    return [Part(np.concatenate([line + normal, (line - normal)[::-1]]))]


def _union(rng: np.random.Generator) -> list[Part]:
    parts: list[Part] = []
    centre = np.zeros(2)
    for _ in range(int(rng.integers(2, 4))):
        scale = rng.uniform(0.35, 0.75)
        (part,) = (_superellipse, _blob, _polygon, _silhouette)[int(rng.integers(4))](rng)
        parts.append(Part(part.points * scale + centre))
        direction = rng.uniform(0, 2 * np.pi)
        centre = centre + scale * 0.8 * np.array([np.cos(direction), np.sin(direction)])
    return parts


# A kind is taken where the draw from 0..1 is below its limit.
_KINDS: tuple[tuple[float, Callable[[np.random.Generator], list[Part]]], ...] = (
    (0.22, _superellipse),
    (0.40, _blob),
    (0.54, _polygon),
    (0.59, _star),
    (0.75, _silhouette),
    (0.79, _ring),
    (0.82, _cup),
    (0.87, _stroke),
    (1.00, _union),
)
