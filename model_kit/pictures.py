"""Owns decoding one encoded picture to pixels, as a browser shows it."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError
from PIL.GifImagePlugin import GifImageFile
from PIL.TiffImagePlugin import TiffImageFile

from model_kit import structure
from model_kit.colour import MAX_PROFILE_BYTES, is_two_way, profile_of, shown_in_srgb, to_srgb
from model_kit.image_bounds import FORMATS, MAX_PIXELS, reason_to_refuse
from model_kit.jpeg import without_end
from model_kit.masks import read_mask
from model_kit.metadata import without_metadata
from model_kit.png_colours import described_profile

Pixels = npt.NDArray[np.uint8]

_PNG_BITS = 24  # place of the byte that says how many bits a sample of a PNG has
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 274, 258, 262  # tags of EXIF and TIFF
_WHITE_IS_ZERO = 0
_GREY_MODES = ("1", "L", "LA")

MAX_READS = 1_000_000
"""Of one file; 64 MiB of PNG take some 30,000. Parsers in Python take a microsecond for each."""

# A picture may take three times as long, and twice as much memory, as the dearest honest one.
BASE_S, PIXELS_A_SECOND = 2.0, 20_000_000
BASE_BYTES, BYTES_A_PIXEL = 2**28, 32


class ImageRefusedError(Exception):
    """Not a picture that may be decoded; the text says why, for its sender."""


class UndecodableError(ImageRefusedError):
    """Not a whole file of a format that is read."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Invalid image data or unsupported format: {reason}")
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded picture, upright: users draw on what is shown."""

    native: Pixels
    """RGB uint8 [height, width, 3] as the file has them; what is transparent is not applied."""
    alpha: Pixels | None
    """uint8 [height, width], 255 = opaque; None: opaque everywhere."""
    profile: bytes | None
    """ICC profile of `native`, into which an edit can be converted; None: sRGB."""
    bits: int = 8
    """Of a sample in the file, if more than eight; `native` has the upper eight."""

    def writable(self) -> Picture:
        """Return the picture, or its sRGB if its profile only leads away from it."""
        if self.profile is None or is_two_way(self.profile):
            return self
        return Picture(self.in_srgb(), self.alpha, None)

    def in_srgb(self) -> Pixels:
        """Return the colours, what is transparent not applied: sRGB uint8 [height, width, 3]."""
        return self.native if self.profile is None else to_srgb(self.native, self.profile)

    def shown(self) -> Pixels:
        """Return what a browser shows on a white page: sRGB uint8 [height, width, 3]."""
        pixels = self.in_srgb()
        if self.alpha is None:
            return pixels
        rgba = Image.fromarray(np.dstack([pixels, self.alpha]))
        white = Image.new("RGBA", rgba.size, "white")
        return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def warm_up() -> None:
    """Read a small file of every format, so that a worker finds all plugins loaded."""
    for kind in FORMATS:
        file = BytesIO()
        Image.new("RGB", (8, 8)).save(file, kind)
        decode(file.getvalue(), 64)


def seconds_for(pixels: int) -> float:
    """Return how long a picture of so many pixels may take to be read, in seconds."""
    return BASE_S + pixels / PIXELS_A_SECOND


def memory_for(pixels: int) -> int:
    """Return how many bytes the reading of a picture of so many pixels may allocate."""
    return BASE_BYTES + BYTES_A_PIXEL * pixels


# Pillow raises an error beyond twice its bound; where it only warns, `reason_to_refuse` decides.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# Of a PNG's compressed parts `without_metadata` leaves only the profile. In other formats Pillow
# has no bound for it.
PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE_BYTES


class _Bounded(BytesIO):
    """A file of which a parser may not read a small part after the other for ever."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise ImageRefusedError("a file of too many parts")
        return super().read(size)


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decode one encoded picture.

    - The EXIF orientation is applied, one that only XMP has is not. An animation gives its first
      frame.
    - Samples of 12 and 16 bits keep their upper 8. A palette's colours and transparency are
      applied, and so is a transparent colour.
    - Grey and CMYK come as sRGB, by their profile where they have one. An RGB picture keeps its
      pixels and its profile, or comes as sRGB if nothing can be converted into that profile, as
      into many scanners'. A profile that cannot be used, or fits other pixels, is passed over.
      A PNG's cICP, gAMA and cHRM are profiles too. What shines brighter than white is clipped.
    - A JPEG without its end marker is taken where all its pixels are there.

    Args:
        data: a whole PNG, JPEG, WEBP, BMP, GIF or TIFF file.
        max_pixels: largest width x height, checked in the header before any pixel is decoded.

    Raises:
        ImageRefusedError: not such a file, damaged, truncated, too large or too costly.
    """
    return _decoded(data, max_pixels, managed=True)


def decode_rgb(data: bytes, max_pixels: int) -> Pixels:
    """Decode one picture to what a browser shows: sRGB uint8 [height, width, 3].

    Raises:
        ImageRefusedError: as `decode`.
    """
    return decode(data, max_pixels).shown()


def decode_mask(data: bytes, max_pixels: int) -> Pixels:
    """Decode one mask by what it means, as `read_mask` does: uint8 [height, width], 255 = edit.

    Its samples are no colours of light, so a profile changes none of them.

    Raises:
        ImageRefusedError: as `decode`.
        MaskError: it is empty, or can be read in two ways.
    """
    picture = _decoded(data, max_pixels, managed=False)
    pixels = picture.native
    if picture.alpha is not None:
        pixels = np.dstack([pixels, picture.alpha])
    return read_mask(pixels, picture.bits)


def _decoded(data: bytes, max_pixels: int, *, managed: bool) -> Picture:
    """Do as `decode`; pass over every profile unless colours are managed."""
    if reason := structure.reason_to_refuse(data, max_pixels):
        raise ImageRefusedError(reason)
    try:
        kept = without_metadata(data)
        with Image.open(_Bounded(kept), formats=FORMATS) as picture:
            if reason := reason_to_refuse(picture, max_pixels):
                raise ImageRefusedError(reason)
            loaded = _upright(_loaded(picture, kept))
            return _taken(loaded, _bits(loaded, kept), managed=managed)
    except ImageRefusedError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = min(max_pixels, MAX_PIXELS)
        raise ImageRefusedError(f"more than the {most} pixels allowed") from error
    except MemoryError as error:
        raise ImageRefusedError("needs more memory to decode than it may") from error
    except UnidentifiedImageError as error:
        if kind := structure.format_of(data):
            reason = f"a {kind} of a kind that is not read, or damaged"
        else:
            reason = f"not a {', '.join(FORMATS)} file"
        raise UndecodableError(reason) from error
    except Exception as error:
        # Damaged files make Pillow's parsers raise whatever they stumble over: OSError,
        # SyntaxError, ValueError, struct.error and more.
        raise UndecodableError(_own_words(str(error))) from error


def _own_words(problem: str) -> str:
    """Return what Pillow says of a file, for somebody who does not know Pillow."""
    if "truncated" in problem.lower():
        return "image file is truncated: its end is missing"
    if problem == "could not create decoder object":
        return "image file is damaged or truncated"
    return problem


def _loaded(picture: Image.Image, data: bytes) -> Image.Image:
    # Pillow turns a TIFF while it loads it, also by an orientation that only its XMP has.
    picture.info.pop("xmp", None)
    drawn = picture.tile[0].extents if isinstance(picture, GifImageFile) else None
    try:
        picture.load()
    except OSError:
        whole = without_end(data) if picture.format == "JPEG" else None
        if whole is None:
            raise
        return whole
    if picture.format == "PNG":
        _scale_transparent_colour(picture, data[_PNG_BITS])
        is_grey = picture.mode in _GREY_MODES or picture.mode.startswith("I;16")
        if (profile := described_profile(data, picture.info, is_grey)) is not None:
            picture.info["icc_profile"] = profile
    if drawn is not None and drawn != (0, 0, *picture.size):
        return _alone(picture, drawn)
    return picture


def _alone(frame: Image.Image, drawn: tuple[int, int, int, int]) -> Image.Image:
    """Return what a GIF's first frame draws; Pillow fills what lies around it with a colour."""
    picture = Image.new("RGBA", frame.size)
    picture.paste(frame.convert("RGBA").crop(drawn), drawn[:2])
    return picture


def _scale_transparent_colour(picture: Image.Image, bits: int) -> None:
    """Bring a PNG's transparent colour to 8 bits, as Pillow has brought the pixels."""
    colour = picture.info.get("transparency")
    if picture.mode == "L" and isinstance(colour, int):
        most = 2**bits - 1
        picture.info["transparency"] = (colour & most) * 255 // most
    elif picture.mode == "RGB" and isinstance(colour, tuple) and bits == 16:
        picture.info["transparency"] = tuple(sample >> 8 for sample in colour)


def _upright(picture: Image.Image) -> Image.Image:
    # The pixels are whole; like a browser, do without an EXIF block that cannot be read.
    with contextlib.suppress(Exception):
        exif = Image.Exif()
        exif.load(picture.info.get("exif", b""))
        # Programs that turn a picture and drop its EXIF often leave the orientation in its XMP.
        # Browsers do not read that one, and Pillow does.
        if _ORIENTATION in exif:
            # In place: else it copies also what lies right already.
            ImageOps.exif_transpose(picture, in_place=True)
    return picture


def _sixteen_bits(picture: Image.Image) -> npt.NDArray[np.uint16]:
    """Return samples that span all 16 bits, 0 = black: uint16 [height, width]."""
    samples = np.asarray(picture).astype(np.uint16)
    if isinstance(picture, TiffImageFile):
        # Pillow leaves these two to its caller.
        samples <<= 16 - picture.tag_v2[_BITS_PER_SAMPLE][0]
        if picture.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            samples = ~samples
    return samples


def _bits(picture: Image.Image, data: bytes) -> int:
    """Return how many bits a sample has in the file, 8 if they are fewer."""
    if isinstance(picture, TiffImageFile):
        return int(max((8, *picture.tag_v2.get(_BITS_PER_SAMPLE, (1,)))))
    return max(8, data[_PNG_BITS]) if picture.format == "PNG" else 8


def _taken(picture: Image.Image, bits: int, *, managed: bool) -> Picture:
    alpha = None
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.mode.startswith("I;16"):
        samples = _sixteen_bits(picture)
        grey = Image.fromarray((samples >> 8).astype(np.uint8))
        grey.info = dict(picture.info)
        # Pillow would compare it with eight bits of each sample.
        transparent = grey.info.pop("transparency", None)
        if transparent is not None:
            alpha = np.where(samples == transparent, np.uint8(0), np.uint8(255))
        picture = grey
    if picture.has_transparency_data:
        alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
    # Many programs leave the fourth byte of a BMP's pixels at 0, and browsers show these opaque.
    unused = picture.format == "BMP" and alpha is not None and not alpha.any()
    if alpha is not None and (unused or alpha.min() == 255):
        alpha = None
    flat = _flat(picture)
    profile = profile_of(flat) if managed else None
    if profile is not None and flat.mode != "RGB":
        try:
            flat, profile = shown_in_srgb(flat, profile), None
        except ImageCms.PyCMSError:
            profile = None
    native = np.asarray(flat if flat.mode == "RGB" else flat.convert("RGB"))
    return Picture(native, alpha, profile, bits).writable()


def _flat(picture: Image.Image) -> Image.Image:
    """Drop what is transparent: a picture of mode RGB, L or CMYK, its profile kept."""
    if picture.mode in ("RGB", "L", "CMYK"):
        return picture
    if picture.mode in ("1", "LA"):
        flat = picture.convert("L")
    elif picture.has_transparency_data:
        # Through RGBA, because Pillow would lay a palette's transparent colours on black.
        flat = picture.convert("RGBA").convert("RGB")
    else:
        flat = picture.convert("RGB")
    flat.info = picture.info
    return flat
