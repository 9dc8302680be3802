"""Owns what of a picture an edit works on, and how its result goes back into the picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL.Image import Resampling

from edit_conditions.images import Pixels, resize, size_of
from edit_conditions.masks import HARD_THRESHOLD, Box, binarise, dilate, feathered, touched
from edit_conditions.placement import position_mask
from edit_conditions.quality import InputQuality, check_aspect, letterboxed_size
from edit_conditions.regions import MAX_REGIONS, Region, Size, around, cropped, whole
from edit_conditions.request import ConditionsRequest, MaskTool
from edit_conditions.shadow import cast_shadow, expand_mask
from edit_conditions.task import Task
from model_kit.errors import invalid
from model_kit.masks import covers
from model_kit.sizes import square_side

LANCZOS = Resampling.LANCZOS
BRUSH_RADIUS = 35
"""How far a brush mask grows, in pixels of the picture: strokes miss the object's rim, and what
is left of it would colour the whole fill."""
FEATHER = 1 / 64
"""Of a crop's longer side: how far beyond the mask the result fades into the picture."""
MIN_FEATHER = 4
"""Pixels."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One region as the model sees it; all pictures and masks have the region's content size."""

    source: Pixels
    """sRGB uint8 [height, width, 3]."""
    mask: Pixels | None
    """Mask A, soft; None where the task takes none."""
    positioned: Pixels | None
    """Mask R placed on mask A, soft; in the two-source flow alone."""
    hole: Pixels | None
    """255 where the fill replaces the picture: wherever mask A, grown by a brush, touches it. What
    goes into the picture is this hole's."""
    scale: float
    """Pixels of the content for each pixel of the picture, along a side."""
    part: tuple[float, float, float, float]
    """Left, top, right and bottom edge of the region as fractions of the picture, 0..1."""


@dataclass(frozen=True, eq=False)
class EditPlan:
    """What is edited, and where the results go."""

    picture: Pixels
    """What the results go into, uint8 [height, width, 3 or 4]; the fourth channel is alpha."""
    profile: bytes | None
    """ICC profile of `picture`; None: sRGB."""
    regions: tuple[Region, ...]
    scenes: tuple[Scene, ...]
    """One for each region."""
    paste_masks: tuple[Pixels, ...] | None
    """For each region, 255 = result, 0 = picture; uint8 of the region's box. None: no mask."""
    composited: bool
    """Whether `picture` is kept, bit for bit, where the paste masks are 0."""
    in_place: bool
    """Whether the answer is the picture as it was sent, edited in place."""
    square: int | None
    """Side of the black square in whose middle `picture` is returned; None: as it is."""
    size: Size
    """Of the answer, to which the finished picture is stretched."""


def plan(request: ConditionsRequest, shadow_hint: bool) -> EditPlan:
    """Decide what an edit works on.

    - `full`: the whole picture in its input quality, as existing clients expect. A picture that
      is larger than the model was made for is worked on smaller, and an edit with a mask then goes
      into the picture's own pixels. One of too few pixels for the model is worked on larger.
    - `auto`: crops around the masked objects of the picture as it was sent; white balance takes
      the whole picture.
    - A box: that part of the picture as it was sent.

    Args:
        request: checked and decoded.
        shadow_hint: the flow darkens a shadow around an inserted object, which is then pasted too.

    Raises:
        CodedError: INVALID_ARGUMENT: the picture or the box is too elongated, the box lies outside
            the picture or holds nothing of the mask but at its edge, the mask vanishes at the
            picture's size, a two-source mask cannot be placed, or an edit in place changes only
            what is transparent.
    """
    if request.region == "full":
        return _full(request, shadow_hint)
    image = request.picture.native
    picture = image if request.picture.alpha is None else np.dstack([image, request.picture.alpha])
    mask = _stretched_mask(request)
    positioned = _positioned(request, mask, by_object=True)
    box = None if request.region == "auto" else _inside(request.region, size_of(image))
    if box is not None and request.task is not Task.REMOVAL:
        # An insertion casts the shadow of what it is shown. A brush's strokes beside the box count,
        # because the rim of what they cover reaches into it.
        mask, positioned = _alone(mask, box), _alone(positioned, box)
    pasted = _pasted(positioned, shadow_hint)
    hole = None if mask is None else _hole(request, mask, shadow_hint)
    # The object need not fill mask A, and its shadow may leave it.
    hard = hole if pasted is None else binarise(pasted, HARD_THRESHOLD)
    if box is not None:
        own = None if hard is None else hard[box.window]
        found = [(cropped(box, request.image_area), own)]
    elif hard is None:
        found = [(whole(size_of(image), request.image_area), None)]
    else:
        # Each crop would paste all objects that it holds, so one crop has to hold them all.
        most = MAX_REGIONS if positioned is None else 1
        found = [*around(hard, request.image_area, most)]
    for region, _ in found:
        check_aspect((region.box.width, region.box.height), "IMAGE" if box is None else "REGION")
    shown, paste_masks = request.picture.shown(), _paste_masks(found, pasted, size_of(image))
    if box is not None and mask is not None and paste_masks is not None:
        _check_holds(box, mask if positioned is None else positioned, paste_masks[0])
    _check_shows(request, box, hole)
    return EditPlan(
        picture=picture,
        profile=request.picture.profile,
        regions=tuple(region for region, _ in found),
        scenes=tuple(_scene(region, shown, mask, hole, positioned) for region, _ in found),
        paste_masks=paste_masks,
        composited=mask is not None or box is not None,
        in_place=True,
        square=None,
        size=_answer(request, size_of(image)),
    )


def _full(request: ConditionsRequest, shadow_hint: bool) -> EditPlan:
    shown, mask = request.picture.shown(), _stretched_mask(request)
    square = None
    if request.input_quality is InputQuality.RESIZED:
        square = square_side(max(size_of(shown)))
        shown = resize(shown, letterboxed_size(size_of(shown), square), LANCZOS)
    else:
        check_aspect(size_of(shown), "IMAGE")
    frame = size_of(shown) if square is None else (square, square)
    asked = _asked_pixels(request, size_of(shown), frame)
    if asked is not None and asked > math.prod(size_of(shown)):
        # Rounded to whole pixels, which the region must not round once more.
        shown, asked = resize(shown, _grown(size_of(shown), asked), LANCZOS), None
    size = size_of(shown)
    mask = None if mask is None else _fitted(request, mask, size)
    positioned = _positioned(request, mask, by_object=False)
    region = whole(size, request.image_area, asked)
    hole = None if mask is None else _hole(request, mask, shadow_hint)
    paste_mask = _pasted(positioned, shadow_hint)
    if paste_mask is None and hole is not None:
        paste_mask = feathered(hole, _feather(region))
    return EditPlan(
        picture=shown,
        profile=None,
        regions=(region,),
        scenes=(_scene(region, shown, mask, hole, positioned),),
        paste_masks=None if paste_mask is None else (paste_mask,),
        # What was generated smaller than the picture would be softer than the picture.
        composited=positioned is not None or (mask is not None and region.scale < 1),
        in_place=False,
        # The square has grown with its picture.
        square=None if square is None else max(size),
        size=_answer(request, frame),
    )


def _stretched_mask(request: ConditionsRequest) -> Pixels | None:
    """Stretch mask A to the size of the picture as sent, so that it covers the same part."""
    if request.mask is None:
        return None
    return _fitted(request, request.mask, size_of(request.picture.native))


def _fitted(request: ConditionsRequest, mask: Pixels, size: Size) -> Pixels:
    """Stretch mask A to a size; refuse it if its specks vanish, because then nothing is edited."""
    two_source = request.reference_mask is not None
    fitted = resize(mask, size, Resampling.NEAREST if two_source else LANCZOS)
    if not binarise(fitted, HARD_THRESHOLD).any():
        raise invalid(
            "CONDITIONAL_IMAGE_0",
            "nothing of the mask is left at {}x{} pixels".format(*size),
        )
    return fitted


def _positioned(
    request: ConditionsRequest, mask: Pixels | None, *, by_object: bool
) -> Pixels | None:
    if mask is None or request.reference_mask is None or request.reference_image is None:
        return None
    size = size_of(request.reference_image)
    reference_mask = resize(request.reference_mask, size, Resampling.NEAREST)
    return position_mask(mask, reference_mask, by_object=by_object)


def _pasted(positioned: Pixels | None, shadow_hint: bool) -> Pixels | None:
    if positioned is None or not shadow_hint:
        return positioned
    return expand_mask(positioned, cast_shadow(positioned))


def _hole(request: ConditionsRequest, mask: Pixels, shadow_hint: bool) -> Pixels:
    if shadow_hint and request.reference_image is not None:
        mask = expand_mask(mask, cast_shadow(mask))
    hole = binarise(mask, HARD_THRESHOLD)
    if request.task is Task.REMOVAL and request.mask_tool is MaskTool.BRUSH:
        return dilate(hole, BRUSH_RADIUS)
    return hole


def _alone(mask: Pixels | None, box: Box) -> Pixels | None:
    """Return a mask of which only what lies in the box is set."""
    if mask is None:
        return None
    alone = np.zeros_like(mask)
    alone[box.window] = mask[box.window]
    return alone


def _check_holds(box: Box, mask: Pixels, paste_mask: Pixels) -> None:
    """Refuse a box that would come back as it was sent."""
    own = mask[box.window] > HARD_THRESHOLD
    if not own.any():
        raise invalid("REGION", "holds nothing of the mask")
    if not (paste_mask[own] > HARD_THRESHOLD).any():
        raise invalid(
            "REGION", "holds the mask at its edge alone, where an edit fades out; take a larger box"
        )


def _check_shows(request: ConditionsRequest, box: Box | None, hole: Pixels | None) -> None:
    """Refuse what would change transparent pixels alone: they stay so, but for an insertion's."""
    alpha = request.picture.alpha
    if alpha is None or request.task is Task.INSERTION:
        return
    window = (slice(None), slice(None)) if box is None else box.window
    if hole is not None and not covers(hole[window], alpha[window]):
        raise invalid(
            "CONDITIONAL_IMAGE_0",
            "covers only transparent parts of the picture, which stay so; "
            "with the region full they become white",
        )
    if hole is None and not alpha[window].any():
        raise invalid("IMAGE" if box is None else "REGION", "is transparent everywhere")


def _inside(asked: Sequence[int], picture: Size) -> Box:
    left, top, right, bottom = asked
    width, height = picture
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise invalid(
            "REGION",
            f"{list(asked)} does not lie inside the picture of {width}x{height}",
        )
    return Box(left, top, right - left, bottom - top)


def _answer(request: ConditionsRequest, frame: Size) -> Size:
    """Return the answer's size: as asked, else the frame's."""
    return request.width or frame[0], request.height or frame[1]


def _asked_pixels(request: ConditionsRequest, size: Size, frame: Size) -> int | None:
    """Return the picture's pixels in the answer; None if the client asked for no size.

    A rounded budget: the answer has exactly the size that was asked, whatever is generated.
    """
    if request.width is None and request.height is None:
        return None
    return max(1, round(math.prod(_answer(request, frame)) / math.prod(frame) * math.prod(size)))


def _grown(size: Size, asked: int) -> Size:
    """Return a picture's size in a larger answer, with its aspect kept."""
    scale = math.sqrt(asked / math.prod(size))
    return round(size[0] * scale), round(size[1] * scale)


def _scene(
    region: Region,
    shown: Pixels,
    mask: Pixels | None,
    hole: Pixels | None,
    positioned: Pixels | None,
) -> Scene:
    window, content = region.box.window, region.content
    return Scene(
        source=resize(shown[window], content, LANCZOS),
        mask=None if mask is None else _seen(mask[window], content),
        positioned=None if positioned is None else _seen(positioned[window], content),
        hole=None if hole is None else touched(hole[window], content),
        scale=region.scale,
        part=_part(region.box, size_of(shown)),
    )


def _part(box: Box, picture: Size) -> tuple[float, float, float, float]:
    width, height = picture
    right, bottom = box.left + box.width, box.top + box.height
    return box.left / width, box.top / height, right / width, bottom / height


def _seen(mask: Pixels, content: Size) -> Pixels:
    """Bring a mask to the content's size; an object of less than a pixel becomes one pixel."""
    soft = resize(mask, content, LANCZOS)
    if math.prod(content) >= mask.size:
        return soft
    near = dilate(binarise(soft, HARD_THRESHOLD), 1)
    vanished = (touched(binarise(mask, HARD_THRESHOLD), content) > 0) & (near == 0)
    return np.where(vanished, np.uint8(255), soft)


def _paste_masks(
    found: Sequence[tuple[Region, Pixels | None]], positioned: Pixels | None, picture: Size
) -> tuple[Pixels, ...] | None:
    masks = []
    for region, own in found:
        radius = _feather(region)
        if positioned is not None:
            mask = positioned[region.box.window]
        elif own is not None:
            mask = feathered(own, radius)
        elif (region.box.width, region.box.height) == picture:
            return None
        else:
            mask = np.full((region.box.height, region.box.width), 255, np.uint8)
        masks.append(np.minimum(mask, _fading(region.box, picture, radius)))
    return tuple(masks)


def _feather(region: Region) -> int:
    return max(MIN_FEATHER, round(FEATHER * max(region.box.width, region.box.height)))


def _fading(box: Box, picture: Size, radius: int) -> Pixels:
    """Return 255 inside a box, falling to 0 at those of its edges that are not the picture's."""

    def ramp(start: int, length: int, limit: int) -> npt.NDArray[np.float64]:
        steps = np.full(length, 255.0)
        # A narrow box fades over less of it, so that half of it at least is edited whole.
        width = min(radius, length // 4)
        fade = 255.0 * np.arange(width) / max(width, 1)
        if start > 0:
            steps[:width] = fade
        if start + length < limit:
            steps[length - width :] = fade[::-1]
        return steps

    across = ramp(box.left, box.width, picture[0])
    down = ramp(box.top, box.height, picture[1])
    fading: Pixels = np.rint(np.minimum(across[np.newaxis], down[:, np.newaxis])).astype(np.uint8)
    return fading
