"""Owns how large a picture may be, judged from its header before a pixel is decoded."""

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

# Of any picture, whatever a setting allows: Pillow allocates the first frame of a GIF while it
# opens the file, a byte for each pixel, before anybody can look at its size.
MAX_PIXELS = 2**27
# JPEG and GIF can say no more; in the other formats Pillow keeps a list entry for each row.
MAX_SIDE = 65_535
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15
_SUBFILE_TYPE, _REDUCED = 254, 1  # TIFF 6.0, section 8
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339
_SIGNS = {2: "signed ", 3: "floating-point "}  # TIFF 6.0, section 19


def reason_to_refuse(image: Image.Image, max_pixels: int) -> str | None:
    """Return why an opened image must not be decoded; None if it may be.

    Args:
        image: opened, not yet loaded.
        max_pixels: largest width x height.
    """
    sizes = [image.size]
    if isinstance(image, TiffImageFile):
        # A tile is decoded whole, however little of it the picture shows.
        sizes.append((image.tag_v2.get(_TILE_WIDTH, 0), image.tag_v2.get(_TILE_LENGTH, 0)))
        if image.tag_v2.get(_SUBFILE_TYPE, 0) & _REDUCED:
            # Cameras' raw files are TIFFs that begin with a thumbnail.
            return "its first picture is a small copy of another, as in a camera's raw file"
    for width, height in sizes:
        if reason := too_large(width, height, max_pixels):
            return reason
    if image.mode in ("I", "F"):
        return f"{_samples(image)} are not supported"
    return None


def _samples(image: Image.Image) -> str:
    """Say what the samples of a TIFF are; of all formats only that one has more than 16 bits."""
    assert isinstance(image, TiffImageFile)
    bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0]
    sign = _SIGNS.get(image.tag_v2.get(_SAMPLE_FORMAT, (1,))[0], "")
    return f"{sign}{bits}-bit samples"


def too_large(width: int, height: int, max_pixels: int) -> str | None:
    """Return why a picture of this size is refused; None if it is not."""
    if width * height > max_pixels:
        return f"{width}x{height} is more than the {max_pixels} pixels allowed"
    if max(width, height) > MAX_SIDE:
        return f"{width}x{height} is longer than the {MAX_SIDE} pixels allowed"
    return None
