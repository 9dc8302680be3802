"""Owns what an image may cost to decode, judged from its header alone."""

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

# A progressive JPEG decodes the whole picture once a scan, and an empty scan takes 33 bytes.
# Cameras and encoders stay below 20; the rest is for markers that a video appended to the
# file (a "motion photo") holds by chance.
MAX_JPEG_SCANS = 500
# Of any picture, whatever a setting allows: Pillow allocates the first frame of a GIF while it
# opens the file, a byte for each pixel, before anybody can look at its size.
MAX_PIXELS = 2**27
# libpng refuses to write longer sides.
MAX_SIDE = 1_000_000
_START_OF_SCAN = b"\xff\xda"
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15


def reason_to_refuse(image: Image.Image, data: bytes, max_pixels: int) -> str | None:
    """Return why an opened image must not be decoded; None if it may be.

    Args:
        image: opened, not yet loaded.
        data: the encoded file.
        max_pixels: largest width x height.
    """
    sizes = [image.size]
    if isinstance(image, TiffImageFile):
        # A tile is decoded whole, however little of it the picture shows.
        sizes.append((image.tag_v2.get(_TILE_WIDTH, 0), image.tag_v2.get(_TILE_LENGTH, 0)))
    for width, height in sizes:
        if width * height > max_pixels:
            return f"{width}x{height} is more than the {max_pixels} pixels allowed"
        if max(width, height) > MAX_SIDE:
            return f"{width}x{height} is longer than the {MAX_SIDE} pixels allowed"
    if isinstance(image, JpegImageFile) and data.count(_START_OF_SCAN) > MAX_JPEG_SCANS:
        return f"a JPEG of more than {MAX_JPEG_SCANS} scans"
    if image.mode in ("I", "F"):
        return "32-bit samples are not supported"
    return None
