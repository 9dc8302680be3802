"""Owns synthetic scenes with the mask of every object; the demo's mask network learns from them."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from export.scenes.mask_outlines import Part, coverage, outline
from export.scenes.mask_textures import FloatArray, clouds, colour, similar, texture

MAX_OBJECTS = 9
# Smallest area of a drawn or labelled object, as a fraction of the picture.
MIN_AREA = 0.0012
# An object gets a label only where at least this fraction of it is seen.
MIN_VISIBLE = 0.3


@dataclass(frozen=True)
class Scene:
    """A picture and what it shows."""

    picture: npt.NDArray[np.uint8]
    """uint8 [size, size, 3], RGB."""
    labels: npt.NDArray[np.uint8]
    """uint8 [size, size]: 0 is background, 1 to n is the object seen at that pixel."""


def draw_scene(seed: int, size: int = 256) -> Scene:
    """Draw a scene: a background and up to nine objects, which partly cover one another.

    Args:
        seed: names the scene; the same seed and size give the same pixels.
        size: side, in pixels.

    Returns:
        The scene. A nearly hidden object stays in the picture but gets no label.
    """
    rng = np.random.default_rng(seed)
    canvas = _background(rng, size)
    light = _direction(rng)
    kin = colour(rng) if rng.random() < 0.2 else None
    order = np.zeros((size, size), np.uint8)
    areas = []
    for extent in _extents(rng, alike=kin is not None):
        found = _add_object(rng, canvas, extent, light, kin)
        if found is not None:
            box, solid = found
            areas.append(int(solid.sum()))
            order[box][solid] = len(areas)
    return Scene(_photographed(rng, canvas), _visible(order, areas))


Box = tuple[slice, slice]
Solid = npt.NDArray[np.bool_]


def _background(rng: np.random.Generator, size: int) -> FloatArray:
    canvas = texture(rng, size, size)
    for _ in range(int(rng.choice([0, 0, 1, 2]))):
        side = _direction(rng)
        axis = np.arange(size, dtype=np.float32) - size / 2
        distance = axis[:, None] * side[1] + axis[None] * side[0] - rng.uniform(-0.4, 0.4) * size
        if rng.random() < 0.4:
            distance = distance + size * (clouds(rng, size, size, 2, 3) - 0.5) / 2
        softness = rng.choice([1.0, 2.0, 20.0, 60.0])
        fraction = np.clip(distance / softness + 0.5, 0, 1).astype(np.float32)[..., None]
        canvas += fraction * (texture(rng, size, size) - canvas)
    if rng.random() < 0.2:  # out of focus
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(1, 6))
    return canvas


def _extents(rng: np.random.Generator, alike: bool) -> list[float]:
    """Draw how large each object is; 1 spans the picture."""
    count = int(rng.integers(1, MAX_OBJECTS + 1))
    kind = rng.random()
    if alike:
        extents = rng.uniform(0.12, 0.3, count)
    elif kind < 0.25:
        extents = rng.uniform(0.1, 0.3, count)
    elif kind < 0.5:
        extents = rng.uniform(0.35, 0.95, count)
    else:
        extents = np.exp(rng.uniform(np.log(0.1), np.log(0.95), count))
    if rng.random() < 0.5:  # small things more often lie on large ones than under them
        extents = np.sort(extents)[::-1]
    return [float(extent) for extent in extents]


def _add_object(
    rng: np.random.Generator,
    canvas: FloatArray,
    extent: float,
    light: FloatArray,
    kin: FloatArray | None,
) -> tuple[Box, Solid] | None:
    """Paint one object over the canvas.

    Returns:
        The region that the object was painted in, and which pixels of the region it covers. None
        where too little of the object lies inside the picture.
    """
    size = len(canvas)
    parts = _placed(rng, outline(rng), extent, size)
    points = np.concatenate([part.points for part in parts])
    left, top = (int(edge) for edge in np.clip(np.floor(points.min(0)) - 1, 0, size))
    right, bottom = (int(edge) for edge in np.clip(np.ceil(points.max(0)) + 1, 0, size))
    if min(right - left, bottom - top) < 3:
        return None
    box = slice(top, bottom), slice(left, right)
    parts = [Part(part.points - [left, top], part.filled) for part in parts]
    alpha = coverage(parts, bottom - top, right - left)
    solid = alpha > 0.5
    if solid.sum() < MIN_AREA * size * size:
        return None
    surface = _surface(rng, canvas[box], solid, kin)
    surface = _shaded(rng, surface, solid, light)
    if rng.random() < 0.35:
        _cast_shadow(rng, canvas, box, alpha, light)
    if rng.random() < 0.12:
        line = cv2.morphologyEx(alpha, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) * alpha
        surface += line[..., None] * (colour(rng) - surface)
    canvas[box] += alpha[..., None] * (surface - canvas[box])
    return box, solid


def _placed(rng: np.random.Generator, parts: list[Part], extent: float, size: int) -> list[Part]:
    """Stretch, turn, scale and move an outline."""
    stretch = np.exp(rng.uniform(-0.45, 0.45))
    cosine, sine = _direction(rng) if rng.random() < 0.7 else (1.0, 0.0)
    turned = np.array([[cosine, sine], [-sine, cosine]]) * [[stretch], [1 / stretch]]
    centre = rng.uniform(0.02, 0.98, 2) * size
    return [
        Part(part.points @ turned * (extent * size / 2) + centre, part.filled) for part in parts
    ]


def _surface(
    rng: np.random.Generator, behind: FloatArray, solid: Solid, kin: FloatArray | None
) -> FloatArray:
    """Texture an object so that, if possible, its rim differs from what lies behind."""
    height, width = solid.shape
    rim = cv2.morphologyEx(solid.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    needed = rng.choice([18, 35, 60])
    for _ in range(5):
        base = colour(rng) if kin is None else similar(rng, kin, 14)
        surface = texture(rng, height, width, base)
        if np.abs(surface - behind)[rim > 0].max(axis=1).mean() > needed:
            break
    if rng.random() < 0.35:
        for _ in range(int(rng.integers(1, 4))):  # painted details are part of the object
            scale = rng.uniform(0.1, 0.4) * np.array([width, height])
            centre = np.array([width, height]) * rng.normal(0.5, 0.15, 2)
            parts = [Part(part.points * scale + centre, part.filled) for part in outline(rng)]
            fraction = coverage(parts, height, width)[..., None]
            surface += fraction * (texture(rng, height, width) - surface)
    return surface


def _shaded(
    rng: np.random.Generator, surface: FloatArray, solid: Solid, light: FloatArray
) -> FloatArray:
    kind = rng.random()
    height, width = solid.shape
    if kind < 0.3:
        y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
        x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
        slope = (x * light[0] + y * light[1]) * np.float32(rng.uniform(0.3, 1.3))
        sloping: FloatArray = surface * (1 + slope)[..., None]
        return sloping
    if kind < 0.65:  # as if inflated: height grows with the distance from the rim
        raised = np.sqrt(cv2.distanceTransform(solid.astype(np.uint8), cv2.DIST_L2, 3) + 0.1)
        raised = cv2.GaussianBlur(raised, (0, 0), max(1, 0.04 * max(height, width)))
        across = cv2.Sobel(raised, cv2.CV_32F, 1, 0, scale=0.375)
        down = cv2.Sobel(raised, cv2.CV_32F, 0, 1, scale=0.375)
        upright = 1 / np.sqrt(1 + across**2 + down**2)
        facing = -(across * light[0] + down * light[1]) * upright * rng.uniform(0.3, 1)
        brightness = np.clip(0.35 * upright + 0.9 * facing + 0.55, 0.15, 1.5).astype(np.float32)
        lit: FloatArray = surface * brightness[..., None]
        if rng.random() < 0.4:  # a highlight
            lit += 200 * np.clip(3 * brightness - 3.3, 0, 1)[..., None]
        return lit
    return surface


def _cast_shadow(
    rng: np.random.Generator, canvas: FloatArray, box: Box, alpha: FloatArray, light: FloatArray
) -> None:
    """Darken what lies behind an object, away from the light."""
    size = len(canvas)
    unit = size / 256
    shadow = np.zeros((size, size), np.float32)
    shadow[box] = alpha
    step = rng.uniform(1, 12) * unit * light
    moved = np.array([[1, 0, step[0]], [0, 1, step[1]]], np.float32)
    shadow = cv2.warpAffine(shadow, moved, (size, size))
    shadow = cv2.GaussianBlur(shadow, (0, 0), rng.uniform(1.5, 8) * unit)
    canvas *= (1 - np.float32(rng.uniform(0.2, 0.65)) * shadow)[..., None]


def _photographed(rng: np.random.Generator, canvas: FloatArray) -> npt.NDArray[np.uint8]:
    """Add what a camera adds: uneven light, blur, noise, a tone curve, JPEG."""
    size = len(canvas)
    if rng.random() < 0.3:
        canvas = canvas * (0.6 + 0.8 * clouds(rng, size, size, 1, 2))[..., None]
    canvas = np.clip(canvas, 0, 255)
    if rng.random() < 0.4:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.5:
        channels = int(rng.choice([1, 3]))
        noise = rng.standard_normal((size, size, channels), np.float32)
        canvas = np.clip(canvas + noise * np.float32(rng.uniform(1, 14)), 0, 255)
    if rng.random() < 0.3:
        canvas = 255 * (canvas / 255) ** np.float32(rng.uniform(0.6, 1.7))
    picture: npt.NDArray[np.uint8] = canvas.astype(np.uint8)
    if rng.random() < 0.12:
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 92))]
        picture = cv2.imdecode(cv2.imencode(".jpg", picture, quality)[1], cv2.IMREAD_COLOR)
    return picture


def _visible(order: npt.NDArray[np.uint8], areas: list[int]) -> npt.NDArray[np.uint8]:
    """Renumber the objects that are visible enough; the others become background."""
    seen = np.bincount(order.ravel(), minlength=len(areas) + 1)
    names = np.zeros(len(areas) + 1, np.uint8)
    for index, area in enumerate(areas, start=1):
        if seen[index] >= max(MIN_AREA * order.size, MIN_VISIBLE * area):
            names[index] = names.max() + 1
    return names[order]


def _direction(rng: np.random.Generator) -> FloatArray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)], np.float32)
