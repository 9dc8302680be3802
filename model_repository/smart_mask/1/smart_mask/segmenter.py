"""Owns the way from a request to its mask: features, selection, finishing, encoding."""

import hashlib
from dataclasses import asdict, dataclass, field

import cv2
import numpy as np

from model_kit.errors import Code, CodedError, invalid
from model_kit.foreign import decode_mask, decode_rgb
from model_kit.lru import Lru
from model_kit.masks import THRESHOLD, MaskError
from model_kit.memory import Returns
from model_kit.pictures import ImageRefusedError
from smart_mask import selection as mask_selection
from smart_mask.errors import nothing_found
from smart_mask.features import Features, read_features
from smart_mask.finish import finish
from smart_mask.letterbox import Floats, Letterbox, Pixels, above
from smart_mask.network import Infer
from smart_mask.progress import Progress
from smart_mask.request import MaskRequest
from smart_mask.settings import MaskSettings

# Pixels. The middle of a rough mask is searched in a copy of at most this width and height.
_GUIDANCE_SIDE = 512
# A mask without any brighter pixel counts as empty.
_HALF = 127
# Of each pixel of the picture, roughly: what a request works on. A new picture is decoded too.
_BYTES_OF_CLICK, _BYTES_OF_PICTURE = 4, 12
# Border adjustment for the most salient object, unless the client gives one.
_SALIENT_BORDER = 5


@dataclass(frozen=True, eq=False)
class Mask:
    """One answer."""

    png: bytes = field(repr=False)
    """Grey, of the upright picture's size."""
    image_id: str
    score: float
    cached: bool
    """Whether the features came from the cache, without a run of the network."""
    detections: int
    """Number of detections in the whole picture."""
    box: list[int]
    """x0, y0, x1, y1 of the mask before it was finished, in pixels."""
    points_missed: list[int]
    """Positions in the request's points: positive ones that the mask does not hold."""


class Segmenter:
    """Answers any number of requests at the same time."""

    def __init__(self, settings: MaskSettings, infer: Infer) -> None:
        """Start with an empty cache.

        Args:
            settings: thresholds and bounds.
            infer: runs the network on one picture; blocks; several threads may call it.
        """
        self._settings = settings
        self._infer = infer
        self._returns = Returns()
        self._cache: Lru[Features] = Lru(settings.cache_bytes, settings.cache_ttl_s)

    def cache_counts(self) -> dict[str, int]:
        """Return the counts of the cache of features as INFO has them."""
        counts = asdict(self._cache.counts())
        return {"images": counts.pop("entries"), **counts}

    def segment(self, request: MaskRequest, progress: Progress) -> Mask:
        """Find the mask that the prompts of a request mean.

        Args:
            request: as checked.
            progress: gets the time of each stage; may end the request between two of them.

        Raises:
            CodedError: a picture cannot be decoded, the image_id is unknown, nothing is found, or
                the client has cancelled the request.
            PendingError: another request is at the same new picture.
        """
        image_id, features, cached = self._features(request, progress)
        middle = self._middle(request.guidance, features.letterbox)
        progress.check()
        index, border = self._select(features, request, middle, progress)
        progress.note("select")
        if index is None:
            raise nothing_found(_why_nothing(features, request, middle))
        mask = features.mask(index)
        progress.note("assemble")
        left, top, width, height = cv2.boundingRect(mask)
        finished = finish(mask, border=border, blur=request.blur)
        progress.note("finish")
        if finished.max() <= _HALF:
            raise nothing_found(
                f"after smoothing and a border adjustment of {border} nothing is left"
            )
        # OpenCV's default level is also its fastest.
        _, png = cv2.imencode(".png", finished)
        progress.note("encode")
        self._returns.freed((_BYTES_OF_CLICK if cached else _BYTES_OF_PICTURE) * finished.size)
        return Mask(
            png.tobytes(),
            image_id,
            float(features.scores[index]),
            cached,
            len(features.scores),
            [left, top, left + width, top + height],
            _points_missed(finished, request),
        )

    def _features(self, request: MaskRequest, progress: Progress) -> tuple[str, Features, bool]:
        """Return the picture's id, its features, and whether the cache had them."""
        data = request.image
        if data is None:
            known = self._cache.find(request.image_id)
            if known is None:
                text = f"IMAGE_ID: not found or expired: {request.image_id}"
                raise CodedError(Code.NOT_FOUND, text)
            progress.note("cache")
            return request.image_id, known, True
        image_id = hashlib.sha256(data).hexdigest()
        features, cached = self._cache.find_or_compute(
            image_id, lambda: self._compute(data, progress)
        )
        progress.note("cache")
        return image_id, features, cached

    def _compute(self, data: bytes, progress: Progress) -> Features:
        progress.note("cache")
        pixels = self._decode("IMAGE", data)
        letterbox = Letterbox.fit(pixels.shape[1], pixels.shape[0], self._settings.image_size)
        image = letterbox.apply(pixels)
        progress.note("decode")
        predictions, prototypes = self._infer(image)
        # No check from here on: the features are nearly done, and other requests may wait for them.
        progress.laps.note("network")
        features = read_features(
            letterbox,
            predictions,
            prototypes,
            confidence=self._settings.confidence,
            iou=self._settings.iou,
            most=self._settings.max_detections,
        ).reaching_border()
        progress.laps.note("detections")
        return features

    def _select(
        self,
        features: Features,
        request: MaskRequest,
        middle: Floats | None,
        progress: Progress,
    ) -> tuple[int | None, int]:
        """Return the detection that the first prompt means, and the border adjustment."""
        if request.points is not None and request.positive is not None:
            index = mask_selection.by_points(features, request.points, request.positive)
        elif request.box is not None:
            index = mask_selection.by_box(features, request.box, progress.check)
        elif middle is not None:
            index = mask_selection.by_points(features, middle, np.ones(1, np.bool_))
        else:
            return mask_selection.most_salient(features), request.border or _SALIENT_BORDER
        return index, request.border

    def _middle(self, guidance: bytes | None, letterbox: Letterbox) -> Floats | None:
        """Find the set place of a rough mask that is nearest to its middle.

        Returns:
            float32 [1, 2], x and y in pixels of the picture; None if nothing is set, or the client
            sent no mask.
        """
        if guidance is None:
            return None
        try:
            grey = decode_mask(guidance, self._settings.max_image_pixels)
        except (ImageRefusedError, MaskError) as error:
            raise invalid("MASK", str(error)) from error
        height, width = grey.shape
        # Any non-zero average counts as set; otherwise thin strokes would vanish when shrunk.
        size = (min(width, _GUIDANCE_SIDE), min(height, _GUIDANCE_SIDE))
        small = cv2.resize(above(grey, THRESHOLD), size, interpolation=cv2.INTER_AREA)
        rows, columns = np.nonzero(small)
        if not len(rows):
            return None
        nearest = np.argmin((columns - columns.mean()) ** 2 + (rows - rows.mean()) ** 2)
        scale = np.array([letterbox.width, letterbox.height]) / size
        place = (np.array([columns[nearest], rows[nearest]]) + 0.5) * scale
        middle: Floats = place[None].astype(np.float32)
        return middle

    def _decode(self, field: str, data: bytes) -> Pixels:
        try:
            return decode_rgb(data, self._settings.max_image_pixels)
        except ImageRefusedError as error:
            raise invalid(field, str(error)) from error


def _why_nothing(features: Features, request: MaskRequest, middle: Floats | None) -> str:
    """Return why no detection fits the prompts, in the order in which they count."""
    letterbox = features.letterbox
    size = f"the picture of {letterbox.width}x{letterbox.height} pixels"
    if request.points is not None and request.positive is not None:
        end = (letterbox.width, letterbox.height)
        # As the selection counts: a place less than a pixel before the first one belongs to it.
        inside = ((request.points > -1) & (request.points < end)).all(axis=1)
        if len(outside := np.flatnonzero(request.positive & ~inside)):
            place = _shown(request.points[outside[0]])
            return f"point {outside[0]}, {place}, lies outside {size}"
        if not len(features.scores):
            return f"there is no object in {size}"
        first = _shown(request.points[np.argmax(request.positive)])
        columns, rows = request.points[request.positive].astype(np.int64).T
        if features.hold(columns, rows).any():
            return "every object at the points also holds a point that must be outside"
        several = len(rows) > 1
        return f"no object is at {first}{' or at the other points' if several else ''}"
    if request.box is not None:
        left, top, right, bottom = request.box.tolist()
        if left >= letterbox.width or top >= letterbox.height or right <= 0 or bottom <= 0:
            return f"the box {_shown(request.box)} lies outside {size}"
        return f"no object overlaps the box {_shown(request.box)}"
    if middle is not None:
        return f"no object is at {_shown(middle[0])}, the middle of the rough mask"
    return f"there is no object in {size}"


def _shown(coordinates: Floats) -> str:
    """Return coordinates as a client writes them, to thousandths of a pixel.

    Whole numbers have no fraction, and 0.45 stays so, though FP32 holds 0.449999988.
    """
    shown = (np.format_float_positional(value, 3, trim="-") for value in coordinates)
    return f"[{', '.join(shown)}]"


def _points_missed(mask: Pixels, request: MaskRequest) -> list[int]:
    """Find the positive points of a request that lie outside a mask.

    Args:
        mask: uint8 [height, width], 0..255.
        request: a point outside the picture moves to the border.

    Returns:
        Their positions in the request's points.
    """
    if request.points is None or request.positive is None:
        return []
    height, width = mask.shape
    columns, rows = request.points.astype(np.int64).clip(0, (width - 1, height - 1)).T
    missed: list[int] = np.flatnonzero(request.positive & (mask[rows, columns] <= _HALF)).tolist()
    return missed
