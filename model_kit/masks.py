"""Owns what a mask means: white = edit, whatever kind of picture it came as."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFilter

Pixels = npt.NDArray[np.uint8]

THRESHOLD = 127
"""A mask pixel above it counts as set."""
COLOURED = 48
"""Difference of a pixel's channels from which it is a colour, not a grey that JPEG has touched; and
brightness from which it may be a label."""
LEVELS = 8
"""Levels of brightness that count as one."""
MAX_DIM, FEW = 5, 0.85
"""Dim labels have so many of these at most, but for a rest."""
WHITE = 245
"""From it on, of all three channels, a stroke is white. A light ground is darker somewhere."""
OPAQUE = 250
"""Alpha from which on a pixel is opaque: resizing and lossy formats lose some levels."""
NEARLY_ALL = 0.98
PAINT = 128
"""Difference of a colour's channels from which a flat colour is a brush's, not a ground's."""
FLAT = 24
"""Levels by which a lossy format moves the pixels of one colour at most."""
EXACT = 2
"""Levels by which rounding moves the pixels of one colour at most. A pale ground of a photograph
has more."""
MAX_PAINTS = 4
"""Colours of the brushes of one canvas."""
CLEAR_RIM = 0.25
"""Of a canvas's rim, so much is opaque at most if only strokes lie on it."""
NOTHING_SET = "No object found in mask (no white pixels)"
"""As clients know it."""
MAX_LABELS = 32
"""Distinct colours of a label map; a photograph has thousands."""


class MaskError(Exception):
    """No mask, or one that can be read in two ways; the text says what was seen."""


class EmptyMaskError(MaskError):
    """Nothing of the mask is set."""


def read_mask(pixels: Pixels, bits: int = 8) -> Pixels:
    """Read a mask by what it means.

    - Without transparency: brightness. Colours on black, as a label map or a coloured brush
      gives, are all set.
    - White strokes, or strokes of bright brushes on a transparent canvas: the strokes, as opaque
      as they are.
    - Black with a hole, or the picture itself with a hole, as OpenAI's clients send: the hole.

    Args:
        pixels: RGB or RGBA, uint8 [height, width, 3 or 4].
        bits: of a sample in the file, of which these are the upper eight; for the error text.

    Returns:
        uint8 [height, width], 255 = edit, soft.

    Raises:
        EmptyMaskError: nothing of it is above THRESHOLD.
        MaskError: it can be read in two ways.
    """
    if pixels.shape[2] == 3 or pixels[..., 3].min() >= OPAQUE:
        mask = _opaque(pixels[..., :3])
    else:
        mask = _transparent(pixels)
    return not_empty(mask, bits)


def not_empty(mask: Pixels, bits: int = 8) -> Pixels:
    """Return a mask, uint8 [height, width], of which something is set; `bits` as in `read_mask`.

    Raises:
        EmptyMaskError: nothing of it is above THRESHOLD.
    """
    brightest = int(mask.max(initial=0))
    if brightest > THRESHOLD:
        return mask
    said = f"{brightest} of 255, and white means edit"
    if bits > 8:
        # Programs that know eight bits write 255 for white into such files too.
        white, below = 2**bits - 1, brightest + 1 << bits - 8
        said = f"at most {below - 1} of {white}: white is {white} in {bits}-bit samples"
    raise EmptyMaskError(f"{NOTHING_SET}: its brightest pixel is {said}")


def covers(mask: Pixels, alpha: Pixels) -> bool:
    """Return whether a mask is set where anything of a picture can be seen.

    Args:
        mask: uint8 [height, width], set above THRESHOLD.
        alpha: the picture's, of the same shape, 0 = transparent.
    """
    return bool(np.any(alpha, where=mask > THRESHOLD))


def luma(pixels: Pixels) -> Pixels:
    """Return the luma (ITU-R BT.601) of RGB uint8 [height, width, 3]; uint8 [height, width]."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def _opaque(pixels: Pixels) -> Pixels:
    red, green, blue = Image.fromarray(pixels).split()
    lightest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    darkest = ImageChops.darker(ImageChops.darker(red, green), blue)
    high = np.asarray(lightest)
    black = high <= 16
    differences = ImageChops.subtract(lightest, darkest).histogram()
    # Of what is not black, because a small stroke on a large canvas counts too.
    if sum(differences[COLOURED + 1 :]) <= 0.001 * (high.size - np.count_nonzero(black)):
        return luma(pixels)
    if black.any() and _colours(pixels) <= MAX_LABELS:
        return np.where(black, np.uint8(0), np.uint8(255))
    if black.mean() >= 0.25 and (high[~black] > THRESHOLD).mean() >= 0.6:
        return _labelled(high)
    raise MaskError(
        "the mask looks like a photograph: it has colours nearly everywhere; "
        "send white where the picture is to be edited and black elsewhere"
    )


def _labelled(high: Pixels) -> Pixels:
    """Set dim labels too: (64, 0, 0) is as much an object as white. A soft edge stays soft.

    Lossy formats move a label by some levels, so most of what is dim lies near a few of them, and
    among its like. The edge of a brush is steep, or has all levels.
    """
    # With what a lossy format has lifted above THRESHOLD.
    dim = (high > COLOURED) & (high <= THRESHOLD + FLAT)
    if not dim.any():
        return high
    shown = Image.fromarray(high)
    rise = ImageChops.subtract(
        shown.filter(ImageFilter.MaxFilter(3)), shown.filter(ImageFilter.MinFilter(3))
    )
    levels = np.sort(np.bincount(high[dim] // LEVELS))[-MAX_DIM:]
    if (np.asarray(rise)[dim] <= FLAT).mean() < 0.5 or levels.sum() < FEW * dim.sum():
        return high
    return np.where(dim, np.uint8(255), high)


def _colours(pixels: Pixels) -> int:
    """Count distinct colours, up to just above MAX_LABELS."""
    found = Image.fromarray(pixels).getcolors(MAX_LABELS)
    return MAX_LABELS + 1 if found is None else len(found)


def _painted(shown: Pixels, paints: int) -> bool:
    """Return whether nearly all RGB pixels, uint8 [n, 3], have one of so many strong colours.

    White is one of several, but none by itself.
    """
    left = shown
    for _ in range(paints):
        colour = _commonest(left)
        is_white = paints > 1 and colour.min() >= WHITE
        if np.ptp(colour) < PAINT and not is_white:
            return False
        left = left[_distances(left, colour) > FLAT]
        if len(left) <= (1 - NEARLY_ALL) * len(shown):
            return True
    return False


def _even(shown: Pixels) -> bool:
    """Return whether nearly all RGB pixels, uint8 [n, 3], have one colour exactly."""
    return bool((_distances(shown, _commonest(shown)) <= EXACT).mean() >= NEARLY_ALL)


def _commonest(shown: Pixels) -> Pixels:
    colours, counts = np.unique(shown, axis=0, return_counts=True)
    commonest: Pixels = colours[counts.argmax()]
    return commonest


def _distances(shown: Pixels, colour: Pixels) -> npt.NDArray[np.int16]:
    distances: npt.NDArray[np.int16] = np.abs(shown.astype(np.int16) - colour).max(axis=1)
    return distances


def _core(alpha: Pixels, opaque: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return where a mask shows its own colours: bool [height, width], set somewhere.

    Resizing and lossy formats mix those at an edge with what lies beside it. Thin strokes have
    little else.

    Args:
        alpha: of the mask.
        opaque: where it is opaque.
    """
    solid = Image.fromarray(alpha)
    for size in (5, 3, 1):
        core: npt.NDArray[np.bool_] = (
            np.asarray(solid.filter(ImageFilter.MinFilter(size))) >= OPAQUE
        )
        if core.sum() >= 0.1 * opaque.sum():
            return core
    return opaque


def _transparent(pixels: Pixels) -> Pixels:
    alpha = pixels[..., 3]
    if not alpha.any():
        raise EmptyMaskError(f"{NOTHING_SET}: it is transparent everywhere")
    opaque = alpha > THRESHOLD if (alpha > THRESHOLD).any() else alpha > 0
    shown = pixels[_core(alpha, opaque)][:, :3]
    # A part of them tells: counting them all takes seconds.
    shown = shown[:: 1 + len(shown) // 100_000].copy()
    high, low = shown.max(axis=1), shown.min(axis=1)
    dark, white = float((high <= 48).mean()), float((low >= WHITE).mean())
    rim = np.concatenate([opaque[0], opaque[-1], opaque[:, 0], opaque[:, -1]]).mean()
    if dark >= NEARLY_ALL:
        return np.uint8(255) - alpha
    if white >= NEARLY_ALL:
        return alpha
    bright = float((high > THRESHOLD).mean())
    if rim <= CLEAR_RIM and bright >= 0.9 and (_painted(shown, MAX_PAINTS) or _even(shown)):
        return alpha
    if rim >= 0.5 and dark + white < NEARLY_ALL and not _painted(shown, 1):
        return np.uint8(255) - alpha
    raise MaskError(
        f"the mask can be read in two ways: {1 - opaque.mean():.0%} of it is transparent, and of "
        f"the rest {white:.0%} is white and {dark:.0%} black; send white strokes on a transparent "
        "canvas, the picture with a hole, or a mask without transparency"
    )
