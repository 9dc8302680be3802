"""Owns colour profiles: pictures to sRGB and back, and files that say what their pixels are."""

import struct
import zlib
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Pixels = npt.NDArray[np.uint8]

MAX_PROFILE_BYTES = 4 * 2**20
"""Of a profile that is used; a display's has a few thousand."""
_SPACES = {"RGB": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK"}
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_SIGNATURE_AND_IHDR = 33  # bytes of a PNG before any chunk that tells of its colours


def profile_of(picture: Image.Image) -> bytes | None:
    """Return the profile of a picture's pixels, if it must be applied, else None.

    A profile is ignored if it cannot be read, belongs to another kind of pixels (such as a CMYK
    profile in an RGB file), or is sRGB itself.

    Args:
        picture: loaded, of mode RGB, L or CMYK.
    """
    data = picture.info.get("icc_profile")
    return usable(data, picture.mode) if isinstance(data, bytes) else None


def usable(data: bytes, mode: str) -> bytes | None:
    """Return a profile if it must be applied to pixels of mode RGB, L or CMYK, else None."""
    if not 128 < len(data) <= MAX_PROFILE_BYTES or data[16:20] != _SPACES.get(mode):
        return None
    try:
        probe = _probe(mode)
        changed = shown_in_srgb(probe, data)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode == "RGB":
        difference = np.asarray(changed).astype(np.int16) - np.asarray(probe)
        if np.abs(difference).max() <= 1:
            return None
    return data


def to_srgb(pixels: Pixels, profile: bytes) -> Pixels:
    """Convert the pixels of an RGB profile, as `profile_of` returned it, to sRGB.

    Args:
        pixels: RGB uint8 [height, width, 3].
        profile: of an RGB space.
    """
    return np.asarray(shown_in_srgb(Image.fromarray(pixels), profile))


def shown_in_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Convert a picture of mode RGB, L or CMYK from its profile to sRGB (LittleCMS).

    Raises:
        PIL.ImageCms.PyCMSError: the profile cannot be used.
    """
    return _converted(picture, _opened(profile), _SRGB)


def from_srgb(pixels: Pixels, profile: bytes) -> Pixels:
    """Convert sRGB pixels to an RGB profile, as `profile_of` returned it.

    Args:
        pixels: RGB uint8 [height, width, 3].
        profile: of an RGB space.
    """
    return np.asarray(_converted(Image.fromarray(pixels), _SRGB, _opened(profile)))


def is_two_way(profile: bytes) -> bool:
    """Return whether `from_srgb` can use an RGB profile; a scanner's own often leads one way."""
    try:
        from_srgb(np.zeros((1, 1, 3), np.uint8), profile)
    except ImageCms.PyCMSError:
        return False
    return True


def tagged_png(png: bytes, profile: bytes | None) -> bytes:
    """Say in a PNG what its pixels mean: sRGB, or a profile (PNG specification, 11.3.3)."""
    if profile is None:
        chunk = _chunk(b"sRGB", b"\0")
    else:
        chunk = _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    return png[:_SIGNATURE_AND_IHDR] + chunk + png[_SIGNATURE_AND_IHDR:]


def _converted(
    picture: Image.Image, source: ImageCms.ImageCmsProfile, target: ImageCms.ImageCmsProfile
) -> Image.Image:
    converted = ImageCms.profileToProfile(
        picture,
        source,
        target,
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert converted is not None, "it is not done in place"
    return converted


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(BytesIO(profile))


def _probe(mode: str) -> Image.Image:
    """Return a small picture of colours from the whole cube."""
    if mode != "RGB":
        return Image.new(mode, (1, 1))
    steps = np.linspace(0, 255, 6).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(36, 6, 3)
    return Image.fromarray(cube)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
