"""Owns the small pictures that show an edit while it is going on."""

import io
import math
from collections.abc import Sequence

from PIL import Image

from image_edit.conditions import Box, Conditions, Pixels, Region, Size
from image_edit.output import framed
from image_edit.paste import blended, resized
from model_kit.pictures import Picture

# Fast rather than small: a preview is looked at for the length of one step.
WEBP_METHOD = 0
WEBP_QUALITY = 75
LATENT = 8
"""Pixels of the canvas for each of a predicted picture, either way."""
MIN_SIDE, MAX_SIDE = 256, 768
"""Of a preview that shows a crop in its picture, the longer side."""


class Previews:
    """Draws the pictures that the steps of one edit predict, each in its place."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions
        height, width = conditions.picture.shape[:2]
        first = conditions.regions[0]
        scale = first.content[0] / LATENT / first.box.width
        if conditions.in_place:
            longest = min(MAX_SIDE, max(MIN_SIDE, round(scale * max(width, height))))
            scale = min(1.0, longest / max(width, height))
        self._scale = scale
        size = self._small(width), self._small(height)
        small = resized(conditions.picture, size)
        alpha = small[..., 3] if small.shape[2] == 4 else None
        # A preview is tagged with nothing, and opaque.
        self._picture = Picture(small[..., :3], alpha, conditions.profile).shown()
        self._size = self._shown_size(conditions)

    def draw(self, predicted: Sequence[Pixels]) -> bytes:
        """Draw one step.

        Args:
            predicted: for each region, sRGB uint8 [height, width, 3], an eighth of the canvas.

        Returns:
            A WebP.
        """
        picture = self._picture.copy()
        for region, canvas in zip(self._conditions.regions, predicted, strict=True):
            box = self._box(region.box)
            content = self._content(region)
            patch = resized(canvas[: content[1], : content[0]], (box.width, box.height))
            if self._conditions.composited and region.paste_mask is not None:
                mask = resized(region.paste_mask, (box.width, box.height))
                patch = blended(picture[box.window], patch, mask)
            picture[box.window] = patch
        square = self._conditions.square
        shown = framed(picture, None if square is None else self._small(square))
        shown = resized(shown, self._size)
        buffer = io.BytesIO()
        Image.fromarray(shown).save(buffer, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
        return buffer.getvalue()

    def _shown_size(self, conditions: Conditions) -> Size:
        """Return the answer's size, scaled so that its longer side is the small frame's."""
        height, width = conditions.picture.shape[:2]
        frame = (width, height) if conditions.square is None else (conditions.square,) * 2
        small = [self._small(side) for side in frame]
        answer = [
            new * side / old for new, side, old in zip(small, conditions.size, frame, strict=True)
        ]
        scale = max(small) / max(answer)
        across, down = (max(1, round(side * scale)) for side in answer)
        return across, down

    def _small(self, length: int) -> int:
        return max(1, round(length * self._scale))

    def _box(self, box: Box) -> Box:
        height, width = self._picture.shape[:2]
        left, top = (
            min(round(box.left * self._scale), width - 1),
            min(round(box.top * self._scale), height - 1),
        )
        return Box(
            left,
            top,
            max(1, min(self._small(box.width), width - left)),
            max(1, min(self._small(box.height), height - top)),
        )

    def _content(self, region: Region) -> tuple[int, int]:
        width, height = (math.ceil(side / LATENT) for side in region.content)
        return width, height
