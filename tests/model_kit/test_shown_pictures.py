from __future__ import annotations

import io
import re
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw
from PIL.PngImagePlugin import PngInfo

from model_kit.colour import from_srgb, tagged_png
from model_kit.masks import EmptyMaskError
from model_kit.pictures import ImageRefusedError, decode, decode_mask, decode_rgb
from tests.fakes.profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    RED_AND_BLUE_SWAPPED,
    png_chunk,
    profile,
    raw_png,
    raw_tiff,
    scanner_profile,
)

LIMIT = 2**20
TILE = (48, 40)
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>
</rdf:RDF></x:xmpmeta>"""
GREY_ALPHA: dict[str, Any] = {"t258": (8, 8), "t277": (2,), "t338": (1,)}


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def colour_at(data: bytes, x: int = 20, y: int = 20) -> list[int]:
    return [int(value) for value in decode_rgb(data, LIMIT)[y, x]]


# Sanster/IOPaint#437: a wide-gamut photograph comes back pale.
@pytest.mark.parametrize(
    ("primaries", "right"),
    [
        (DISPLAY_P3, (219, 37, 13)),
        (ADOBE_RGB, (236, 59, 34)),
        (RED_AND_BLUE_SWAPPED, (35, 57, 202)),
    ],
    ids=["display-p3", "adobe-rgb", "swapped"],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_rgb_profile_is_applied_in_every_format_that_has_one(
    kind: str, primaries: Any, right: tuple[int, int, int]
) -> None:
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    red = Image.new("RGB", TILE, (200, 60, 40))
    data = encoded(red, kind, icc_profile=profile(primaries), **options)
    assert np.abs(np.array(colour_at(data)) - right).max() <= 8
    untagged = encoded(red, kind, **options)
    assert np.abs(np.array(colour_at(untagged)) - (200, 60, 40)).max() <= 4


def test_what_the_file_holds_is_kept_beside_what_is_shown() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    p3 = profile()
    picture = decode(encoded(Image.fromarray(pixels), icc_profile=p3), LIMIT)
    assert np.array_equal(picture.native, pixels)
    assert picture.profile == p3
    back = from_srgb(picture.shown(), p3).astype(int)
    inside = np.abs(picture.shown().astype(int) - 127).max(axis=2) < 120  # not clipped by sRGB
    assert np.abs(back - pixels)[inside].max() <= 3


def test_a_profile_that_leads_one_way_comes_as_srgb() -> None:
    red = Image.new("RGB", TILE, (255, 0, 0))
    picture = decode(encoded(red, icc_profile=scanner_profile()), LIMIT)
    assert picture.profile is None
    r, g, b = (int(value) for value in picture.native[0, 0])
    assert b > 60 + max(r, g)
    with_alpha = red.copy()
    with_alpha.putalpha(100)
    found = decode(encoded(with_alpha, icc_profile=scanner_profile()), LIMIT)
    assert found.native[0, 0].tolist() == [r, g, b]
    assert found.alpha is not None


def test_a_profile_that_says_srgb_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = decode(encoded(Image.fromarray(pixels), icc_profile=srgb), LIMIT)
    assert picture.profile is None
    assert np.array_equal(picture.shown(), pixels)


# cgwire/zou#1188, lovell/sharp#237: a profile that no longer fits the pixels.
@pytest.mark.parametrize(
    "left_over",
    [profile(space=b"CMYK"), profile(space=b"GRAY"), b"no profile at all", profile()[:200], b""],
    ids=["cmyk", "grey", "text", "cut", "empty"],
)
def test_a_profile_that_cannot_be_used_is_passed_over(left_over: bytes) -> None:
    data = encoded(Image.new("RGB", TILE, (200, 60, 40)), icc_profile=left_over)
    assert colour_at(data) == [200, 60, 40]
    assert decode(data, LIMIT).profile is None


def test_cmyk_comes_as_srgb_without_its_profile() -> None:
    red = Image.new("CMYK", TILE, (0, 255, 255, 0))
    for data in (
        encoded(red, "JPEG", quality=95),
        encoded(red, "JPEG", quality=95, icc_profile=profile(space=b"CMYK")),
        encoded(red, "TIFF"),
    ):
        picture = decode(data, LIMIT)
        assert picture.profile is None
        assert np.abs(picture.native[20, 20].astype(int) - (255, 0, 0)).max() <= 4


def test_grey_follows_its_profile() -> None:
    dark = Image.new("L", TILE, 100)
    linear = encoded(dark, icc_profile=profile(gamma=1.0, space=b"GRAY"))
    value = round(255 * (1.055 * (100 / 255) ** (1 / 2.4) - 0.055))
    assert np.abs(np.array(colour_at(linear)) - value).max() <= 3
    assert colour_at(encoded(dark)) == [100, 100, 100]


P3_CHRM = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
BT_709_CHRM = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
RED = (200, 60, 40)
RED_SHOWN_FROM_P3 = (217, 42, 23)


def with_chunks(picture: Image.Image, **chunks: bytes) -> bytes:
    """Return a PNG with these chunks behind its head."""
    data = encoded(picture)
    added = b"".join(png_chunk(kind.encode(), body) for kind, body in chunks.items())
    return data[:33] + added + data[33:]


def numbers(*values: float) -> bytes:
    """Return what a gAMA or cHRM chunk has for these values."""
    return b"".join(struct.pack(">I", round(value * 100_000)) for value in values)


def srgb(light: float) -> int:
    return round(255 * (12.92 * light if light < 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055))


# What a PNG says of its colours without a profile.
@pytest.mark.parametrize(
    ("chunks", "right"),
    [
        ({"gAMA": numbers(1)}, [srgb(value / 255) for value in RED]),
        ({"gAMA": numbers(1 / 1.8)}, [srgb((value / 255) ** 1.8) for value in RED]),
        ({"gAMA": numbers(0.45455)}, RED),
        ({"gAMA": numbers(0.45455), "cHRM": numbers(*BT_709_CHRM)}, RED),
        ({"gAMA": numbers(0.45455), "cHRM": numbers(*P3_CHRM)}, RED_SHOWN_FROM_P3),
        ({"cHRM": numbers(*P3_CHRM)}, RED_SHOWN_FROM_P3),
        ({"cICP": bytes([12, 13, 0, 1])}, RED_SHOWN_FROM_P3),
        ({"cICP": bytes([1, 8, 0, 1])}, [srgb(value / 255) for value in RED]),
        ({"cICP": bytes([1, 4, 0, 1])}, [srgb((value / 255) ** 2.2) for value in RED]),
        ({"cICP": bytes([1, 13, 0, 1]), "gAMA": numbers(1)}, RED),
        ({"sRGB": b"\0", "gAMA": numbers(1)}, RED),
    ],
)
def test_a_png_may_say_its_colours_without_a_profile(
    chunks: dict[str, bytes], right: list[int]
) -> None:
    for picture in (Image.new("RGB", TILE, RED), Image.new("RGBA", TILE, (*RED, 255))):
        data = with_chunks(picture, **chunks)
        assert np.abs(np.array(colour_at(data)) - right).max() <= 1
        decoded = decode(data, LIMIT)
        assert decoded.native[0, 0].tolist() == list(RED)
        assert (decoded.profile is None) == (list(right) == list(RED))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "CMYK"])
def test_no_profile_changes_a_mask(mode: str) -> None:
    samples = np.tile(np.array([0, 60, 100, 200, 255], np.uint8), (40, 8))
    grey = Image.fromarray(samples)
    if mode == "CMYK":
        inverse = Image.fromarray(~samples)
        picture = Image.merge("CMYK", [inverse] * 3 + [Image.new("L", grey.size)])
        files = [encoded(picture, "TIFF", icc_profile=profile(space=b"CMYK"))]
    elif mode == "I;16":
        files = [with_chunks(Image.fromarray(samples.astype(np.uint16) * 257), gAMA=numbers(1))]
    else:
        space = b"GRAY" if mode.startswith("L") else b"RGB "
        linear = profile(gamma=1.0, space=space)
        picture = grey.convert(mode)
        files = [with_chunks(picture, gAMA=numbers(1)), encoded(picture, icc_profile=linear)]
        files += [encoded(picture, icc_profile=scanner_profile())] if space == b"RGB " else []
    for file in files:
        assert (decode_mask(file, LIMIT) == samples).all()


# A program that knows eight bits writes its white, 255, into samples of sixteen.
@pytest.mark.parametrize(
    ("file", "bits"),
    [
        (raw_png((2, 1), 16, 0, struct.pack(">x2H", 0, 255)), 16),
        (raw_png((2, 1), 16, 2, struct.pack(">x6H", 0, 0, 0, 255, 255, 255)), 16),
        (raw_tiff((2, 1), 16, 1, struct.pack("<2H", 0, 255)), 16),
        (raw_tiff((2, 1), 12, 1, b"\0\0\x0f"), 12),
    ],
    ids=["png", "rgb", "tiff", "12 bits"],
)
def test_a_dark_mask_is_told_in_the_samples_of_its_file(file: bytes, bits: int) -> None:
    white = 2**bits - 1
    below = 255 if bits == 16 else 15
    with pytest.raises(EmptyMaskError) as caught:
        decode_mask(file, LIMIT)
    assert str(caught.value) == (
        "No object found in mask (no white pixels): its brightest pixel is at most "
        f"{below} of {white}: white is {white} in {bits}-bit samples"
    )


@pytest.mark.parametrize("bits", [1, 8])
def test_a_dark_mask_of_few_bits_is_told_in_eight(bits: int) -> None:
    with pytest.raises(EmptyMaskError, match="is 0 of 255, and white means edit"):
        decode_mask(raw_png((1, 1), bits, 0, b"\0\0"), LIMIT)


@pytest.mark.parametrize("header", [108, 124])
def test_a_bmp_that_leaves_its_alpha_at_0_is_opaque(header: int) -> None:
    def bmp(alpha: int) -> bytes:
        fields = struct.pack("<IiiHHIIiiII", header, 48, -40, 1, 32, 3, 48 * 40 * 4, 0, 0, 0, 0)
        masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        head = (fields + masks).ljust(header, b"\0")
        start = 14 + len(head)
        pixels = bytes([40, 60, 200, alpha]) * (48 * 40)
        return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + head + pixels

    picture = decode(bmp(0), LIMIT)
    assert picture.alpha is None
    assert picture.shown()[20, 20].tolist() == [200, 60, 40]
    half = decode(bmp(128), LIMIT)
    assert half.alpha is not None
    assert (half.alpha == 128).all()


def test_a_gif_is_transparent_around_what_its_first_frame_draws() -> None:
    frame = encoded(Image.new("RGB", (10, 8), (200, 60, 40)), "GIF")
    # The size of the canvas stands in the file's head, the frame's own place in its descriptor.
    at = frame.index(b",", 13 + 3 * 2 ** ((frame[10] & 7) + 1))
    canvas = struct.pack("<HH", *TILE)
    place = struct.pack("<HH", 20, 16)
    picture = decode(frame[:6] + canvas + frame[10 : at + 1] + place + frame[at + 5 :], LIMIT)
    assert picture.alpha is not None
    right = np.zeros(TILE[::-1], np.uint8)
    right[16:24, 20:30] = 255
    assert (picture.alpha == right).all()
    assert np.abs(picture.native[20, 25].astype(int) - (200, 60, 40)).max() <= 1
    assert decode(frame, LIMIT).alpha is None


def test_described_primaries_are_those_of_the_same_profile() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    picture = Image.fromarray(pixels)
    described = with_chunks(picture, gAMA=numbers(0.5), cHRM=numbers(*P3_CHRM))
    tagged = encoded(picture, icc_profile=profile(DISPLAY_P3, gamma=2.0))
    difference = decode_rgb(described, LIMIT).astype(int) - decode_rgb(tagged, LIMIT)
    assert np.abs(difference).max() <= 3
    decoded = decode(described, LIMIT)
    assert decoded.profile is not None
    back = from_srgb(decoded.shown(), decoded.profile).astype(int)
    inside = np.abs(decoded.shown().astype(int) - 127).max(axis=2) < 120  # not clipped by sRGB
    assert np.abs(back - pixels)[inside].max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "P"])
def test_every_kind_of_png_follows_its_gamma(mode: str) -> None:
    grey = Image.new("L", TILE, 255 if mode == "1" else 100)
    if mode == "I;16":
        picture = Image.fromarray(np.full(TILE[::-1], 100 * 257, np.uint16))
    else:
        picture = grey.convert(mode)
    right = 255 if mode == "1" else srgb(100 / 255)
    shown = colour_at(with_chunks(picture, gAMA=numbers(1)))
    assert np.abs(np.array(shown) - right).max() <= 1


def test_a_cicp_chunk_goes_before_a_profile() -> None:
    data = encoded(Image.new("RGB", TILE, RED), icc_profile=profile(RED_AND_BLUE_SWAPPED))
    data = data[:33] + png_chunk(b"cICP", bytes([12, 13, 0, 1])) + data[33:]
    assert np.abs(np.array(colour_at(data)) - RED_SHOWN_FROM_P3).max() <= 1


@pytest.mark.parametrize(("transfer", "white"), [(16, 148), (18, 191)], ids=["PQ", "HLG"])
def test_high_dynamic_range_is_clipped_at_the_white_of_a_page(transfer: int, white: int) -> None:
    def shown(value: int) -> int:
        grey = Image.new("RGB", TILE, (value,) * 3)
        return colour_at(with_chunks(grey, cICP=bytes([1, transfer, 0, 1])))[0]

    assert shown(0) == 0
    assert 170 < shown(white - 20) < 252 < shown(white)
    assert shown(255) == 255


@pytest.mark.parametrize(
    "chunks",
    [
        {"gAMA": numbers(0)},
        {"gAMA": numbers(20_000)},
        {"cHRM": bytes(32)},
        {"cHRM": numbers(*[0.3] * 8)},
        {"cHRM": numbers(*[9_000] * 8)},
        {"cICP": bytes([12, 13, 0, 0])},
        {"cICP": bytes([12, 13, 1, 1])},
        {"cICP": bytes([12, 77, 0, 1])},
        {"cICP": bytes([77, 13, 0, 1])},
        {"cICP": b"\x0c"},
    ],
)
def test_chunks_that_describe_nothing_are_passed_over(chunks: dict[str, bytes]) -> None:
    data = with_chunks(Image.new("RGB", TILE, RED), **chunks)
    assert colour_at(data) == list(RED)
    assert decode(data, LIMIT).profile is None


def test_transparency_is_kept_and_shown_on_white() -> None:
    half = Image.new("RGBA", TILE, (0, 0, 200, 128))
    picture = decode(encoded(half), LIMIT)
    assert picture.native[0, 0].tolist() == [0, 0, 200]
    assert picture.alpha is not None
    assert picture.alpha[0, 0] == 128
    assert picture.shown()[0, 0].tolist() == [127, 127, 227]
    opaque = decode(encoded(Image.new("RGBA", TILE, (0, 0, 200, 255))), LIMIT)
    assert opaque.alpha is None


def test_a_palette_keeps_the_colour_of_what_is_transparent() -> None:
    picture = Image.new("P", TILE)
    picture.putpalette([10, 20, 30, 255, 0, 0])
    ImageDraw.Draw(picture).rectangle((0, 0, 9, 9), fill=1)
    found = decode(encoded(picture, transparency=0), LIMIT)
    assert found.native[20, 20].tolist() == [10, 20, 30]
    assert found.alpha is not None
    assert (found.alpha[20, 20], found.alpha[5, 5]) == (0, 255)
    assert found.shown()[20, 20].tolist() == [255, 255, 255]


@pytest.mark.parametrize("colour_type", [0, 2, 4, 6])
def test_sixteen_bits_keep_their_upper_eight(colour_type: int) -> None:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    samples = [0xC8FF] * channels
    if colour_type in (4, 6):
        samples[-1] = 0xFFFF
    row = b"\0" + struct.pack(f">{channels}H", *samples) * 8
    found = decode_rgb(raw_png((8, 8), 16, colour_type, row * 8), LIMIT)
    assert found.shape == (8, 8, 3)
    assert np.abs(found.astype(int) - 0xC8).max() <= 1


def test_sixteen_bits_of_grey_are_cut_and_not_rounded() -> None:
    eight = np.arange(256, dtype=np.uint16).reshape(16, 16)
    for samples in (eight << 8, eight * 257):
        found = decode(encoded(Image.fromarray(samples)), LIMIT)
        assert np.array_equal(found.native[..., 0], eight)


def test_a_transparent_shade_of_sixteen_bits_is_compared_with_all_of_them() -> None:
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = decode(encoded(Image.fromarray(samples), transparency=300), LIMIT)
    assert found.alpha is not None
    assert np.array_equal(samples[found.alpha == 0], [300])
    samples[samples == 300] = 301
    assert decode(encoded(Image.fromarray(samples), transparency=300), LIMIT).alpha is None


# optipng and others write grey pictures with as few bits as they need.
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("transparent", ["white", "black"])
def test_a_transparent_shade_of_few_bits_is_found(bits: int, transparent: str) -> None:
    most = 2**bits - 1
    white, black = bytes([0, most << 8 - bits]), bytes(2)
    shade = png_chunk(b"tRNS", struct.pack(">H", most if transparent == "white" else 0))
    found = decode(raw_png((1, 2), bits, 0, white + black, shade), LIMIT)
    assert found.native[:, 0, 0].tolist() == [255, 0]
    assert found.alpha is not None
    assert found.alpha[:, 0].tolist() == ([0, 255] if transparent == "white" else [255, 0])


def test_a_transparent_colour_of_sixteen_bits_is_compared_by_their_upper_eight() -> None:
    clear, other = (0x1234, 0x5678, 0x9ABC), (0x3434, 0x7878, 0xBCBC)
    row = b"\0" + struct.pack(">6H", *clear, *other)
    colour = png_chunk(b"tRNS", struct.pack(">3H", *clear))
    found = decode(raw_png((2, 1), 16, 2, row, colour), LIMIT)
    assert found.alpha is not None
    assert found.alpha.tolist() == [[0, 255]]


def test_grey_of_a_scanner_spans_the_whole_range() -> None:
    twelve = decode(raw_tiff((2, 1), 12, 1, b"\xff\xf8\x00"), LIMIT)
    assert twelve.native[0, :, 0].tolist() == [255, 128]
    inverted = decode(raw_tiff((3, 1), 16, 0, struct.pack("<3H", 0, 0x7FFF, 0xFFFF)), LIMIT)
    assert inverted.native[0, :, 0].tolist() == [255, 128, 0]


def test_grey_with_its_alpha_applied_gets_its_own_shade_back() -> None:
    found = decode(raw_tiff((2, 1), 8, 1, bytes([64, 128, 255, 255]), **GREY_ALPHA), LIMIT)
    assert found.native[0, :, 0].tolist() == [127, 255]
    assert found.alpha is not None
    assert found.alpha.tolist() == [[128, 255]]


# ImageMagick's -auto-orient turns the pixels and the EXIF tag, and leaves the XMP as it was.
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("with_exif", [False, True], ids=["xmp", "exif-and-xmp"])
def test_an_orientation_that_only_xmp_has_is_not_applied(kind: str, with_exif: bool) -> None:
    options: dict[str, Any] = {"xmp": XMP}
    if with_exif:
        options["exif"] = Image.Exif()
        options["exif"][0x0131] = "a program"
    if kind == "PNG":
        del options["xmp"]
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    if kind == "TIFF":
        del options["xmp"]
        options["tiffinfo"] = {700: XMP}
    data = encoded(Image.new("RGB", TILE), kind, **options)
    assert b"tiff:Orientation" in data
    assert decode(data, LIMIT).native.shape == (TILE[1], TILE[0], 3)


def test_an_orientation_in_the_text_of_a_png_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()
    text = PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
    data = encoded(Image.new("RGB", TILE), pnginfo=text)
    assert decode(data, LIMIT).native.shape == (TILE[1], TILE[0], 3)


# python-pillow/Pillow#2717: complete scans without an end marker show whole in browsers.
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_a_jpeg_is_judged_by_its_pixels_and_not_by_its_end_marker(progressive: bool) -> None:
    for seed in range(20):
        noise = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
        whole = encoded(Image.fromarray(noise), "JPEG", progressive=progressive)
        for cut in (1, 2):
            assert np.array_equal(decode_rgb(whole[:-cut], LIMIT), decode_rgb(whole, LIMIT))
        for cut in range(12, len(whole) - 700, 97):
            with pytest.raises(ImageRefusedError, match="truncated"):
                decode_rgb(whole[:-cut], LIMIT)


# Cameras write restart markers, and a decoder skips whatever comes before the next one.
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("every", [{"restart_marker_rows": 1}, {"restart_marker_blocks": 3}])
def test_a_jpeg_that_ends_at_a_restart_marker_is_cut(
    every: dict[str, int], progressive: bool
) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (64, 80, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG", progressive=progressive, **every)
    assert np.array_equal(decode_rgb(whole[:-2], LIMIT), decode_rgb(whole, LIMIT))
    restarts = [m.start() for m in re.finditer(rb"\xff[\xd0-\xd7]", whole)]
    assert restarts
    for start in restarts:
        for end in range(start, start + 3):
            with pytest.raises(ImageRefusedError, match="truncated"):
                decode_rgb(whole[:end], LIMIT)


def test_a_png_says_what_its_pixels_are() -> None:
    plain = encoded(Image.new("RGB", TILE, (200, 60, 40)))
    with Image.open(io.BytesIO(tagged_png(plain, None))) as picture:
        picture.load()
        assert picture.info["srgb"] == 0
    p3 = profile()
    with Image.open(io.BytesIO(tagged_png(plain, p3))) as picture:
        picture.load()
        assert picture.info["icc_profile"] == p3
