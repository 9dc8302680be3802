from __future__ import annotations

import contextlib
import io
import struct

import numpy as np
import pytest
from PIL import Image

from model_kit import foreign, pictures, raster, sandbox
from model_kit.errors import CodedError
from model_kit.masks import EmptyMaskError
from model_kit.pictures import ImageRefusedError
from tests.fakes.pictures import encoded, grey, plain, plain_mask
from tests.fakes.profiles import ADOBE_RGB, RED_AND_BLUE_SWAPPED, profile, raw_tiff, scanner_profile

LIMIT = 10_000
SHADES = np.random.default_rng(0).integers(0, 256, (6, 9, 4), np.uint8)


def saved(pixels: raster.Pixels, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


FILES = {
    "opaque": saved(SHADES[..., :3]),
    "transparent": saved(SHADES),
    "grey": saved(SHADES[..., 0]),
    "profile": saved(SHADES, icc_profile=profile(ADOBE_RGB)),
}


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make sure that nothing is parsed."""
    monkeypatch.setattr(sandbox.Sandbox, "run", lambda *_: pytest.fail("a worker was asked"))


@pytest.mark.parametrize("name", FILES)
def test_a_model_reads_a_file_and_its_plain_pixels_alike(name: str) -> None:
    expected = pictures.decode(FILES[name], LIMIT)
    for data in (FILES[name], plain(FILES[name])):
        read = foreign.decode(data, LIMIT)
        assert (read.native == expected.native).all()
        assert read.profile == expected.profile
        assert (read.alpha is None) == (expected.alpha is None)
        if read.alpha is not None and expected.alpha is not None:
            assert (read.alpha == expected.alpha).all()
        assert (foreign.decode_rgb(data, LIMIT) == expected.shown()).all()


@pytest.mark.parametrize("name", ["opaque", "transparent", "grey"])
def test_reading_plain_pixels_parses_nothing(no_worker: None, name: str) -> None:
    data = plain(FILES[name])
    assert foreign.decode(data, LIMIT).native.shape == (6, 9, 3)
    assert foreign.decode_rgb(data, LIMIT).shape == (6, 9, 3)


def test_a_mask_means_the_same_as_file_and_as_plain_pixels(no_worker: None) -> None:
    expected = pictures.decode_mask(FILES["grey"], LIMIT)
    assert (foreign.decode_mask(plain_mask(FILES["grey"]), LIMIT) == expected).all()
    assert (foreign.decode_mask(plain(FILES["grey"]), LIMIT) == expected).all()


def test_a_mask_is_read_by_a_worker_where_it_is_a_file() -> None:
    expected = pictures.decode_mask(FILES["grey"], LIMIT)
    assert (foreign.decode_mask(FILES["grey"], LIMIT) == expected).all()


def test_an_empty_mask_is_refused_in_every_form() -> None:
    dark = b"".join(map(bytes, raster.write(np.full((4, 4), 100, np.uint8))))
    for data in (grey(100), plain(grey(100)), dark):
        with pytest.raises((EmptyMaskError, ImageRefusedError), match="No object found in mask"):
            foreign.decode_mask(data, LIMIT)


def test_a_profile_beside_plain_pixels_is_a_strangers() -> None:
    hostile = b"".join(map(bytes, raster.write(SHADES[..., :3], None, b"\xff" * 200)))
    assert foreign.decode(hostile, LIMIT).profile is None


def test_a_profile_that_leads_one_way_comes_as_srgb_in_every_form() -> None:
    red = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    for given in (profile(RED_AND_BLUE_SWAPPED), scanner_profile()):
        sent = b"".join(map(bytes, raster.write(red, None, given)))
        found = foreign.decode(sent, LIMIT)
        assert (found.profile is None) == (given == scanner_profile())
        assert int(found.shown()[0, 0, 2]) > 60 + int(found.shown()[0, 0, :2].max())


@pytest.mark.parametrize("function", [foreign.decode, foreign.decode_rgb, foreign.decode_mask])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello", "not a PNG"),
        (encoded(size=(101, 100)), "101x100 is more than the 10000 pixels"),
        (raster.MAGIC, "plain pixels without a whole head"),
        (plain(encoded(size=(101, 100))), "101x100 is more than the 10000 pixels"),
    ],
    ids=["text", "file", "head", "pixels"],
)
def test_what_cannot_be_read_is_refused(function: object, data: bytes, reason: str) -> None:
    assert callable(function)
    with pytest.raises(ImageRefusedError, match=reason):
        function(data, LIMIT)


def _turned_in_two_ways() -> bytes:
    """Return a JPEG whose orientation is two numbers, which Pillow warns of with a path."""
    tag = struct.pack(">HHIHH", 274, 3, 2, 1, 1)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + tag + bytes(4)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    plain = encoded("JPEG")
    return plain[:2] + segment + plain[2:]


@pytest.mark.parametrize(
    "data",
    [
        *(raw_tiff((64, 64), 1, 0, SHADES.tobytes() * 9, t259=(code,)) for code in (2, 3, 5, 8)),
        _turned_in_two_ways(),
    ],
    ids=["fax", "fax 3", "lzw", "deflate", "exif"],
)
def test_what_parsers_say_of_a_picture_does_not_come_into_the_log(
    capfd: pytest.CaptureFixture[str], data: bytes
) -> None:
    opened = sandbox.Sandbox(foreign.__name__)
    with contextlib.suppress(sandbox.RefusedError):
        opened.run(sandbox.Work("picture", [data], {"max_pixels": LIMIT}, 60.0, 2**28))
    opened.close()
    assert capfd.readouterr() == ("", "")


def test_a_file_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BASE_S", 0.0)
    monkeypatch.setattr(pictures, "PIXELS_A_SECOND", 10**12)
    with pytest.raises(ImageRefusedError, match="takes longer than"):
        foreign.decode(encoded(size=(100, 100)), LIMIT)


def test_without_a_worker_the_model_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> sandbox.Worker:
        raise sandbox.SandboxError("no process can be started")

    monkeypatch.setattr(sandbox.Sandbox, "worker", refuse)
    with pytest.raises(CodedError, match=r"\[UNAVAILABLE\] no picture can be decoded now"):
        foreign.decode(encoded(), LIMIT)
