import struct
import time
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model_kit.image_bounds import FORMATS
from model_kit.pictures import ImageRefusedError, decode_rgb
from tests.fakes.profiles import raw_tiff
from tests.models.edit_conditions.pictures import encode, flat, noise

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 10_000

# Red, green over blue, white: every orientation of it differs.
CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], dtype=np.uint8)


def decode(data: bytes) -> Pixels:
    return decode_rgb(data, MAX_PIXELS)


def refusal(data: bytes) -> str:
    with pytest.raises(ImageRefusedError) as caught:
        decode_rgb(data, MAX_PIXELS)
    return str(caught.value)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_as_they_were(file_format: str) -> None:
    pixels = noise(7, 5)
    decoded = decode(encode(pixels, file_format))
    assert decoded.dtype == np.uint8
    assert (decoded == pixels).all()


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_gives_rgb_of_its_size(file_format: str) -> None:
    decoded = decode(encode(flat(24, 16, (200, 40, 90)), file_format))
    assert decoded.shape == (16, 24, 3)
    assert abs(decoded.astype(int) - (200, 40, 90)).max() <= 6


# getpaseo/paseo#700, OkunaOrg/okuna-api#414: a phone's format under another label
@pytest.mark.parametrize("file_format", ["AVIF", "PPM", "ICO", "TGA", "PCX"])
def test_other_formats_that_pillow_knows_are_refused(file_format: str) -> None:
    assert refusal(encode(flat(16, 16, 9), file_format)) == (
        "Invalid image data or unsupported format: not a PNG, JPEG, WEBP, BMP, GIF, TIFF file"
    )


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg/>", b"RIFF\4\0\0\0WAVE"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    assert refusal(data) == (
        "Invalid image data or unsupported format: not a PNG, JPEG, WEBP, BMP, GIF, TIFF file"
    )


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        *(("TIFF", start + bytes(9)) for start in (b"II*\0", b"MM\0*", b"II+\0")),
        ("TIFF", raw_tiff((2, 1), 16, 0, bytes(4), order=">")),  # grey, white as 0
        ("TIFF", raw_tiff((2, 1), 8, 5, bytes(10), t277=(5,), t338=(2,))),  # CMYK with alpha
        ("PNG", b"\x89PNG\r\n\x1a\n"),
        ("JPEG", b"\xff\xd8\xff\xe0"),
        ("GIF", b"GIF89a\1\0"),
        ("WEBP", b"RIFF\4\0\0\0WEBP"),
        ("BMP", b"BM\0\0"),
    ],
)
def test_a_file_whose_format_is_known_is_called_by_it(kind: str, data: bytes) -> None:
    assert refusal(data) == (
        f"Invalid image data or unsupported format: a {kind} of a kind that is not read, or damaged"
    )


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_truncated_files_are_refused(file_format: str, kept: float) -> None:
    data = encode(noise(60, 60), file_format)
    text = refusal(data[: int(len(data) * kept)])
    assert text in {
        f"Invalid image data or unsupported format: {reason}"
        for reason in (
            "image file is truncated: its end is missing",
            "image file is damaged or truncated",
            "a GIF of a kind that is not read, or damaged",  # its header is cut
        )
    }


def test_a_damaged_picture_is_refused() -> None:
    data = bytearray(encode(noise(60, 60)))
    data[len(data) // 2] ^= 0xFF
    assert "Invalid image data" in refusal(bytes(data))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, CORNERS),
        (2, CORNERS[:, ::-1]),
        (3, CORNERS[::-1, ::-1]),
        (4, CORNERS[::-1]),
        (5, CORNERS.transpose(1, 0, 2)),
        (6, np.rot90(CORNERS, -1)),
        (7, np.rot90(CORNERS, 2).transpose(1, 0, 2)),
        (8, np.rot90(CORNERS, 1)),
    ],
)
def test_the_exif_orientation_is_applied(
    file_format: str, orientation: int, upright: Pixels
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = CORNERS.repeat(16, axis=0).repeat(24, axis=1)
    decoded = decode(encode(stored, file_format, exif=exif))
    assert decoded.shape == ((32, 48, 3) if orientation < 5 else (48, 32, 3))
    height, width = decoded.shape[:2]
    corners = decoded[height // 4 :: height // 2, width // 4 :: width // 2]
    assert ((corners > 127) == (upright > 127)).all()


def test_an_unreadable_exif_block_is_ignored() -> None:
    pixels = noise(8, 8)
    data = encode(pixels, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert (decode(data) == pixels).all()


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_an_animation_gives_its_first_frame(file_format: str) -> None:
    first, second = (Image.fromarray(flat(16, 16, grey)) for grey in (255, 0))
    data = encode(first, file_format, save_all=True, append_images=[second])
    assert (decode(data) == 255).all()


def test_alpha_is_composited_on_white() -> None:
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0, :, 3] = 0, 51, 255
    assert decode(encode(pixels))[0, :, 0].tolist() == [255, 204, 0]


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(file_format: str) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putdata([0, 1])
    decoded = decode(encode(picture, file_format, transparency=1))
    assert decoded.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_a_transparent_colour_is_white() -> None:
    data = encode(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8), transparency=(1, 2, 3))
    assert decode(data).tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_one_bit_and_16_bit_grey_span_the_whole_range() -> None:
    assert decode(encode(Image.new("1", (1, 1), 1))).tolist() == [[[255, 255, 255]]]
    samples = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for file_format in ("PNG", "TIFF"):
        decoded = decode(encode(Image.fromarray(samples), file_format))
        assert decoded[0, :, 1].tolist() == [0, 1, 128, 255]


def test_the_thumbnail_of_a_raw_file_is_not_taken_for_the_picture() -> None:
    thumbnail = encode(noise(16, 12), "TIFF", tiffinfo={254: 1})
    assert "camera's raw file" in refusal(thumbnail)
    first_page = encode(noise(16, 12), "TIFF", tiffinfo={254: 2})
    assert decode(first_page).shape == (12, 16, 3)


@pytest.mark.parametrize(
    ("kind", "samples"),
    [
        (np.int32, "signed 32-bit samples"),
        (np.float32, "floating-point 32-bit samples"),
        (np.int16, "signed 16-bit samples"),
        (np.uint32, "32-bit samples"),
    ],
)
def test_samples_without_a_known_range_are_refused_and_called_by_their_kind(
    kind: type[np.generic], samples: str
) -> None:
    bits = 8 * kind().itemsize
    sample_format = {"i": 2, "f": 3, "u": 1}[np.dtype(kind).kind]
    data = raw_tiff((2, 2), bits, 1, np.zeros(4, kind).tobytes(), t339=(sample_format,))
    assert refusal(data) == f"{samples} are not supported"


def test_cmyk_is_converted() -> None:
    assert (decode(encode(Image.new("CMYK", (16, 16)), "JPEG")) == 255).all()


def test_the_pixel_bound_holds_at_the_edge() -> None:
    assert decode(encode(flat(100, 100, 0))).shape == (100, 100, 3)
    assert refusal(encode(flat(101, 100, 0))) == "101x100 is more than the 10000 pixels allowed"


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_bomb_is_refused_from_its_header(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    assert "more than the 10000 pixels" in refusal(data)


def test_a_tiff_tile_larger_than_its_picture_is_refused() -> None:
    data = zlib.compress(bytes(1000))
    # width, height, bits, deflate, black is zero, samples, tile width and length, offset, bytes
    tags = {256: 1, 257: 1, 258: 8, 259: 8, 262: 1, 277: 1, 322: 9000, 323: 9000, 324: 0, 325: 0}
    tags[324], tags[325] = 8 + 2 + 12 * len(tags) + 4, len(data)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    file = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data
    assert refusal(file) == "9000x9000 is more than the 10000 pixels allowed"


def test_a_jpeg_of_endless_scans_is_refused_at_once() -> None:
    data = encode(Image.new("L", (96, 96), 128), "JPEG", progressive=True)
    last_scan, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    bomb = data[:end] + data[last_scan:end] * 100_000 + data[end:]
    start = time.process_time()
    assert "more than 500 scans" in refusal(bomb)
    assert time.process_time() - start < 3
    assert decode(data).shape == (96, 96, 3)
