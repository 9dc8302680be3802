"""Owns where a picture lies in the network's square input, and converting to and from it."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Grey around the picture, as in the network's training (ultralytics' LetterBox).
_PADDING = 114


def above(values: Floats | Pixels, threshold: float) -> Pixels:
    """Return 255 where a value is above the threshold, else 0; uint8 of the same shape."""
    # cv2.compare would treat an array of one element as a scalar.
    return (values > threshold).view(np.uint8) * np.uint8(255)


@dataclass(frozen=True)
class Letterbox:
    """A picture scaled to fit into a square and centred there; all lengths in pixels."""

    width: int
    """Of the picture."""
    height: int
    side: int
    """Of the square."""
    inner_width: int
    """Of the scaled picture."""
    inner_height: int
    left: int
    """Of the scaled picture in the square."""
    top: int

    @classmethod
    def fit(cls, width: int, height: int, side: int) -> "Letterbox":
        """Place a picture of width x height; rounds as ultralytics' LetterBox does."""
        scale = min(side / width, side / height)
        inner_width = max(1, round(width * scale))
        inner_height = max(1, round(height * scale))
        return cls(
            width,
            height,
            side,
            inner_width,
            inner_height,
            left=round((side - inner_width) / 2 - 0.1),
            top=round((side - inner_height) / 2 - 0.1),
        )

    def apply(self, pixels: Pixels) -> Floats:
        """Make the network's input.

        Args:
            pixels: RGB, uint8 [height, width, 3].

        Returns:
            float32 [1, 3, side, side], 0..1.
        """
        if pixels.shape[:2] != (self.inner_height, self.inner_width):
            pixels = cv2.resize(
                pixels, (self.inner_width, self.inner_height), interpolation=cv2.INTER_LINEAR
            )
        square = np.full((self.side, self.side, 3), _PADDING, np.uint8)
        square[self._inside] = pixels
        blob: Floats = cv2.dnn.blobFromImage(square, scalefactor=1 / 255)
        return blob

    def undo(self, mask: Pixels) -> Pixels:
        """Turn a mask over the square into one over the picture.

        Args:
            mask: uint8 [side, side], 0 or 255.

        Returns:
            uint8 [height, width], 0 or 255; bilinear, 255 above one half.
        """
        inside = mask[self._inside]
        if inside.shape == (self.height, self.width):
            return inside
        size = (self.width, self.height)
        smooth = cv2.resize(inside.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        return above(smooth, 127.5)

    def hold(self, points: Floats) -> npt.NDArray[np.bool_]:
        """Return which points lie in the picture: bool [n] from float32 [n, 2], x and y in it."""
        inside: npt.NDArray[np.bool_] = ((points >= 0) & (points < (self.width, self.height))).all(
            axis=1
        )
        return inside

    def into_square(self, places: Floats) -> Floats:
        """Turn places in the picture into places in the square; both float32 [..., 2], x and y."""
        scale = np.array([self.inner_width / self.width, self.inner_height / self.height])
        moved: Floats = (places * scale + (self.left, self.top)).astype(np.float32)
        return moved

    def clip(self, boxes: Floats) -> Floats:
        """Cut the square's bars off boxes in it; both float32 [n, 4], x0 y0 x1 y1."""
        first, last = self._corners
        return boxes.clip(np.tile(first, 2), np.tile(last, 2))

    def stretch(self, boxes: Floats, reach: float) -> Floats:
        """Move the edges of boxes that end shortly before the picture's border onto it.

        Args:
            boxes: float32 [n, 4], x0 y0 x1 y1 in pixels of the square.
            reach: how far before the border such an edge ends at most, in pixels of the square.

        Returns:
            float32 [n, 4].
        """
        first, last = self._corners
        gaps = np.hstack([boxes[:, :2] - first, last - boxes[:, 2:]])
        stretched: Floats = np.where(
            (gaps > 0) & (gaps <= reach), np.concatenate([first, last]), boxes
        )
        return stretched

    @property
    def _corners(self) -> tuple[Floats, Floats]:
        """Return where the picture begins and ends in the square; each float32 [2], x and y."""
        first = np.array([self.left, self.top], np.float32)
        return first, first + np.array([self.inner_width, self.inner_height], np.float32)

    @property
    def _inside(self) -> tuple[slice, slice]:
        return (
            slice(self.top, self.top + self.inner_height),
            slice(self.left, self.left + self.inner_width),
        )
