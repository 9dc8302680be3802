from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_kit.pictures import ImageRefusedError, decode
from model_kit.structure import MAX_EXTENSIONS, MAX_SEGMENTS, reason_to_refuse
from tests.abuse.hostile_files import (
    HOSTILE,
    Hostile,
    gif_extensions,
    jpeg_scans,
    jpeg_segments,
    png_chunk,
    saved,
    tiff,
)
from tests.fuzz.files import whole_files

MAX_PIXELS = 2**26
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda each: each.name)
def test_a_file_of_too_many_parts_is_refused_and_says_of_which(hostile: Hostile) -> None:
    with pytest.raises(ImageRefusedError, match=hostile.says):
        decode(hostile.make(hostile.small), MAX_PIXELS)


@pytest.mark.soak
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda each: each.name)
def test_the_dearest_file_is_refused_in_a_moment(hostile: Hostile) -> None:
    data = hostile.make(hostile.large)
    before = time.process_time()
    reason = reason_to_refuse(data, MAX_PIXELS)
    assert time.process_time() - before < 0.5
    assert reason is not None
    assert hostile.says.replace("70000", "1000000") in reason


@pytest.mark.parametrize("number", range(len(whole_files())))
def test_ordinary_files_pass(number: int) -> None:
    assert reason_to_refuse(whole_files()[number], MAX_PIXELS) is None


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.[pj][np]g")), ids=lambda file: file.name)
def test_photographs_pass(file: Path) -> None:
    assert reason_to_refuse(file.read_bytes(), MAX_PIXELS) is None


def test_what_is_no_picture_is_left_to_the_decoder() -> None:
    for data in (b"", b"hello", b"\xff\xd8\xff", b"GIF89a", b"RIFF", b"BM", b"II*\0", b"II+\0"):
        assert reason_to_refuse(data, MAX_PIXELS) is None
        with pytest.raises(ImageRefusedError):
            decode(data, MAX_PIXELS)


def test_as_many_parts_as_allowed_pass() -> None:
    plain = len(saved("JPEG").split(b"\xff")) + 2
    for data in (
        jpeg_segments(MAX_SEGMENTS - plain),
        jpeg_scans(15),  # a large photograph in progressive scans
        jpeg_segments(255, b"ICC_PROFILE\0\1\1" + bytes(50), 0xE2),
        gif_extensions(MAX_EXTENSIONS // 2 - 1),
    ):
        assert reason_to_refuse(data, MAX_PIXELS) is None


def test_a_video_behind_a_photograph_is_not_counted() -> None:
    photograph = saved("JPEG") + b"\xff\xda\0\x08" * 100_000
    assert decode(photograph, MAX_PIXELS).native.shape == (64, 64, 3)


def test_an_end_before_the_first_scan_hides_nothing() -> None:
    hidden = b"\xff\xd8\xff\xd9" + jpeg_segments(MAX_SEGMENTS + 1)[2:]
    assert "segments" in (reason_to_refuse(hidden, MAX_PIXELS) or "")


def test_bytes_that_only_look_like_markers_are_not_counted() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=100, restart_marker_blocks=1)
    assert buffer.getvalue().count(b"\xff") > 10_000
    assert reason_to_refuse(buffer.getvalue(), MAX_PIXELS) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_of_too_many_tags_is_refused_in_every_format(kind: str) -> None:
    block = b"MM\0*\0\0\0\x08" + struct.pack(">H", 2_000) + bytes(12 * 2_000)
    with pytest.raises(ImageRefusedError, match="EXIF of 2000 tags"):
        decode(saved(kind, exif=b"Exif\0\0" + block), MAX_PIXELS)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_that_only_says_that_it_has_too_many_tags_is_passed_over(kind: str) -> None:
    block = b"MM\0*\0\0\0\x08" + struct.pack(">H", 65_535) + bytes(12 * 900)
    assert decode(saved(kind, exif=b"Exif\0\0" + block), MAX_PIXELS).native.shape == (64, 64, 3)


def test_a_canvas_that_is_made_while_the_file_is_opened_is_bounded() -> None:
    frames = [Image.new("RGBA", (64, 64), (200 * n, 0, 90, 99)) for n in range(2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    data = buffer.getvalue()
    at = data.index(b"VP8X") + 12
    large = data[:at] + (16_383).to_bytes(3, "little") * 2 + data[at + 6 :]
    with pytest.raises(ImageRefusedError, match="16384x16384 is more than the"):
        decode(large, MAX_PIXELS)


def test_pictures_inside_a_tiff_are_counted() -> None:
    strips = [(273, 4, [8]), (278, 4, [8000]), (279, 4, [100])]
    tags = [
        (256, 4, [8000]), (257, 4, [8000]), (258, 3, [8]), (259, 3, [7]), (262, 3, [1]),
        (277, 3, [1]), *strips,
    ]  # fmt: skip
    with pytest.raises(ImageRefusedError, match="JPEGs with 40 scans over 64000000 pixels each"):
        decode(tiff(tags, b"\xff\xda" * 40), MAX_PIXELS)


def test_chunks_behind_the_end_are_not_counted() -> None:
    data = saved("PNG") + png_chunk(b"abCd", b"") * 5_000
    assert decode(data, MAX_PIXELS).native.shape == (64, 64, 3)
