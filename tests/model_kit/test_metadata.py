from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_kit.colour import MAX_PROFILE_BYTES
from model_kit.metadata import without_metadata
from model_kit.pictures import ImageRefusedError, decode, decode_rgb
from tests.fakes.profiles import RED_AND_BLUE_SWAPPED, png_chunk, profile

LIMIT = 2**20
PIXELS = np.random.default_rng(0).integers(0, 256, (29, 41, 3), np.uint8)
LINEAR, AS_SRGB = struct.pack(">I", 100_000), struct.pack(">I", 45_455)
MIB = 2**20
UNPACKS_TO_A_MEGABYTE = zlib.compress(bytes(MIB))


def saved(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


PNG, JPEG, GIF = saved("PNG"), saved("JPEG"), saved("GIF")


def png(*chunks: bytes, behind: bytes = b"") -> bytes:
    """Return a PNG with these chunks before its pixels, and others behind them."""
    return PNG[:33] + b"".join(chunks) + PNG[33:-12] + behind + PNG[-12:]


def with_bad_checksum(chunk: bytes) -> bytes:
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


def jpeg(marker: int, body: bytes) -> bytes:
    return JPEG[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + JPEG[2:]


def gif(extension: bytes) -> bytes:
    start = 13 + (3 << (GIF[10] & 7) + 1)
    return GIF[:start] + extension + GIF[start:]


def is_plain(data: bytes, plain: bytes) -> bool:
    """Return whether a file shows just what the plain one shows."""
    picture = decode(data, LIMIT)
    colours = np.array_equal(picture.native, decode(plain, LIMIT).native)
    return colours and picture.alpha is None and picture.profile is None


# python-pillow/Pillow#5530, #6293: texts of megabytes, such as a workflow or XMP.
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("zTXt", b"Comment\0\0" + UNPACKS_TO_A_MEGABYTE * 2),
        ("zTXt", b"Raw profile type xmp\0\0" + zlib.compress(bytes(64 * MIB))),
        ("iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2 * MIB))),
        ("zTXt", b"a\0\1xx"),
        ("tEXt", b""),
        ("pHYs", b"\0\0"),
        ("gAMA", b"\0"),
        ("gAMA", LINEAR + b"\0"),
        ("cHRM", bytes(5)),
        ("sRGB", b""),
        ("cICP", b"\1"),
        ("tRNS", b"\0"),
        ("bKGD", b"\0"),
        ("acTL", b"\0"),
        ("acTL", bytes(8)),
        ("fcTL", bytes(5)),
        ("fcTL", b"\0\0\0\7" + bytes(22)),
        ("fdAT", b""),
        ("eXIf", b"x"),
        ("iCCP", b""),
        ("iCCP", b"a\0"),
        ("iCCP", b"a\0\0garbage"),
        ("iCCP", b"a\0\1" + zlib.compress(profile())),
        ("iCCP", b"a" * 80 + b"\0\0" + zlib.compress(profile())),
        ("prVt", b"private"),
    ],
)
@pytest.mark.parametrize("place", ["before", "behind"])
def test_no_ancillary_chunk_of_a_png_ends_its_decoding(kind: str, body: bytes, place: str) -> None:
    chunk = png_chunk(kind.encode(), body)
    for each in (chunk, with_bad_checksum(chunk)):
        data = png(each) if place == "before" else png(behind=each)
        assert is_plain(data, PNG)


def test_texts_that_unpack_to_much_together_are_left_out() -> None:
    assert is_plain(png(*[png_chunk(b"zTXt", b"a\0\0" + UNPACKS_TO_A_MEGABYTE)] * 70), PNG)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("gAMA", LINEAR),
        ("cICP", bytes([12, 13, 0, 1])),
        ("iCCP", b"a\0\0" + zlib.compress(profile(RED_AND_BLUE_SWAPPED))),
        ("tRNS", PIXELS[0, 0].astype(">u2").tobytes()),
        ("cHRM", struct.pack(">8I", *range(10_000, 90_000, 10_000))),
        ("sRGB", b"\0"),
    ],
)
def test_of_chunks_that_tell_of_pixels_the_first_whole_one_before_them_counts(
    kind: str, body: bytes
) -> None:
    chunk, other = png_chunk(kind.encode(), body), png_chunk(kind.encode(), bytes(len(body)))
    kept = png(chunk)
    assert without_metadata(kept) is kept
    assert without_metadata(png(with_bad_checksum(chunk), chunk)) == kept
    assert without_metadata(png(chunk, other)) == kept
    assert without_metadata(png(png_chunk(b"tEXt", b"a\0b"), chunk)) == kept
    assert without_metadata(png(behind=chunk)) == PNG


def test_an_unreadable_profile_leaves_the_word_to_what_else_a_png_says() -> None:
    linear = decode_rgb(png(png_chunk(b"gAMA", LINEAR)), LIMIT)
    assert not np.array_equal(linear, PIXELS)
    broken = png(png_chunk(b"iCCP", b"a\0\0garbage"), png_chunk(b"gAMA", LINEAR))
    assert np.array_equal(decode_rgb(broken, LIMIT), linear)
    twice = png(png_chunk(b"gAMA", LINEAR), png_chunk(b"gAMA", AS_SRGB))
    assert np.array_equal(decode_rgb(twice, LIMIT), linear)


@pytest.mark.parametrize("place", ["before", "behind"])
def test_the_orientation_of_a_png_counts_on_both_sides_of_its_pixels(place: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    data = png(chunk) if place == "before" else png(behind=chunk)
    assert decode(data, LIMIT).native.shape == (41, 29, 3)


@pytest.mark.parametrize("kind", ["IHDR", "PLTE", "abc1", "a\0cd", "\xe9abc"])
def test_a_chunk_of_a_png_that_may_not_be_left_out_has_to_be_whole(kind: str) -> None:
    name = kind.encode("latin-1")
    chunk = with_bad_checksum(PNG[8:33] if kind == "IHDR" else png_chunk(name, bytes(6)))
    data = PNG[:8] + chunk + PNG[33:] if kind == "IHDR" else png(chunk)
    with pytest.raises(ImageRefusedError, match="a PNG of a kind that is not read, or damaged"):
        decode(data, LIMIT)


def test_pixels_stay_whole_around_what_is_left_out() -> None:
    stream = PNG[41:-16]
    half = len(stream) // 2
    text = png_chunk(b"tEXt", b"a\0b")
    split = png_chunk(b"IDAT", stream[:half]) + text + png_chunk(b"IDAT", stream[half:])
    assert is_plain(PNG[:33] + text + split + text + PNG[-12:], PNG)
    cut = PNG[:33] + text + split[: half // 2]
    with pytest.raises(ImageRefusedError, match="truncated"):
        decode(cut, LIMIT)


# One bound in all formats, the one of `usable`.
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_bound_of_a_profile_is_the_same_in_every_format(kind: str) -> None:
    def padded(size: int) -> bytes:
        swapped = profile(RED_AND_BLUE_SWAPPED)
        return struct.pack(">I", size) + swapped[4:].ljust(size - 4, b"\0")

    def found(size: int) -> bytes | None:
        return decode(saved(kind, icc_profile=padded(size)), LIMIT).profile

    assert found(MAX_PROFILE_BYTES) == padded(MAX_PROFILE_BYTES)
    assert found(MAX_PROFILE_BYTES + 1) is None


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        (0xE0, b"JFIF\0"),
        (0xE1, b"Exif\0"),
        (0xE1, b""),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"ICC_PROFILE\0\1"),
        (0xE2, b"MPF\0garbage"),
        (0xE2, b"MPF\0MM\0*\0\0\0\x08\0\x03"),
        (0xED, b"Photoshop 3.0\x008BIM\3\xed"),
        (0xEE, b"Adobe"),
        (0xEE, b"Adobe\0d\0\0\0\0"),
    ],
)
def test_no_app_segment_of_a_jpeg_ends_its_decoding(marker: int, body: bytes) -> None:
    assert is_plain(jpeg(marker, body), JPEG)


def test_a_length_of_an_app_segment_that_is_wrong_ends_no_decoding() -> None:
    assert JPEG[2:6] == b"\xff\xe0\0\x10"
    for length in (0, 2, 9):
        assert is_plain(JPEG[:4] + struct.pack(">H", length) + JPEG[6:], JPEG)


def test_a_profile_in_parts_is_found_beside_a_part_without_any() -> None:
    whole = saved("JPEG", icc_profile=profile(RED_AND_BLUE_SWAPPED))
    assert decode(whole, LIMIT).profile is not None
    broken = whole[:2] + b"\xff\xe2\0\x0eICC_PROFILE\0" + whole[2:]
    assert decode(broken, LIMIT).profile == decode(whole, LIMIT).profile


@pytest.mark.parametrize(
    "extension",
    [
        b"!\xff\0",
        b"!\xfe\0",
        b"!\xf9\0",
        b"!\x01\0",
        b"!\xf9\2\0\0\0",
        b"!\xf9\1\1\0",
        b"!\xff\x0bNETSCAPE2.0\0",
        b"!\xff\x0bNETSCAPE2.0\1\1\0",
        b"!\xff\x0bXMP DataXMP\4<x/>\0",
    ],
)
def test_no_extension_of_a_gif_ends_its_decoding(extension: bytes) -> None:
    assert is_plain(gif(extension), GIF)


def test_what_a_gif_says_is_transparent_stays_so_among_other_extensions() -> None:
    control = b"!\xf9\4\1\0\0\0\0"
    right = decode(gif(control), LIMIT).alpha
    assert right is not None
    for data in (gif(b"!\xff\0" + control), gif(control + b"!\x01\0"), gif(b"\0" + control)):
        assert np.array_equal(decode(data, LIMIT).alpha, right)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_file_without_metadata_is_not_copied(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    options: dict[str, Any] = {"exif": exif, "icc_profile": profile()}
    for data in (saved(kind), saved(kind, **(options if kind not in ("BMP", "GIF") else {}))):
        assert without_metadata(data) is data


def test_what_is_no_picture_comes_back_as_it_is() -> None:
    for data in (b"", b"hello", PNG[:8], PNG[:30], b"\xff\xd8\xff", b"GIF89a", GIF[:11], GIF[:14]):
        assert without_metadata(data) is data
