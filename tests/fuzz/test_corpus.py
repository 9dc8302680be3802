"""A fixed part of `make fuzz`: whole files are read, damaged and constructed ones harm nobody."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from model_kit.pictures import ImageRefusedError, decode
from tests.fakes.bad_inputs import bomb, claimed_png
from tests.fuzz import worker
from tests.fuzz.files import SIZE, damaged, whole_files
from tests.fuzz.targets import MAX_PIXELS, Pictures, Requests, check_picture

if TYPE_CHECKING:
    from collections.abc import Callable


FILES = whole_files()


def test_every_whole_file_is_read() -> None:
    for data in FILES:
        height, width = decode(data, MAX_PIXELS).native.shape[:2]
        assert {height, width} == set(SIZE)  # one of them lies on its side
        check_picture(data)


def test_damaged_files_are_read_or_refused() -> None:
    rng = random.Random(14)
    refused = 0
    for _ in range(300):
        data = damaged(rng, FILES)
        check_picture(data)
        try:
            decode(data, MAX_PIXELS)
        except ImageRefusedError:
            refused += 1
    assert 50 < refused < 290


def test_damaged_requests_are_answered() -> None:
    target, rng = Requests(), random.Random(14)
    with target.running() as run:
        for _ in range(150):
            run(target.case(rng))


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def with_chunk(kind: bytes, data: bytes) -> bytes:
    """A small PNG with another chunk before its pixels."""
    return FILES[0][:33] + chunk(kind, data) + FILES[0][33:]


def saved(kind: str, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


def patched(data: bytes, where: int, form: str, *numbers: int) -> bytes:
    packed = struct.pack(form, *numbers)
    return data[:where] + packed + data[where + len(packed) :]


ROOT = Path(__file__).parents[2]
MOST = 48 * 2**20
ZEROS = zlib.compress(bytes(64 * 2**20), 9)
CONSTRUCTED: dict[str, Callable[[], bytes]] = {
    "a profile that unpacks to 64 MiB": lambda: with_chunk(b"iCCP", b"x\0\0" + ZEROS),
    "a comment that unpacks to 64 MiB": lambda: with_chunk(b"zTXt", b"x\0\0" + ZEROS),
    "a text that unpacks to 64 MiB": lambda: with_chunk(b"iTXt", b"x\0\1\0\0\0" + ZEROS),
    "EXIF that points to itself": lambda: with_chunk(
        b"eXIf", b"II*\0\x08\0\0\0" + struct.pack("<H HHII I", 1, 0x8769, 4, 1, 8, 8)
    ),
    "an animation of a billion frames": lambda: with_chunk(b"acTL", struct.pack(">II", 10**9, 0)),
    "a chunk without an end": lambda: FILES[0][:33] + struct.pack(">I", 2**31 - 1) + b"IDAT",
    "a PNG of 2^31 columns": lambda: claimed_png(2**31 - 1, 1),
    "a PNG of nothing": lambda: claimed_png(0, 7),
    "a PNG bomb": lambda: bomb(6000),
    "a GIF whose frame is larger than its screen": lambda: patched(
        saved("GIF", mode="P"), saved("GIF", mode="P").rindex(b",") + 5, "<HH", 65535, 65535
    ),
    "a GIF that is cleared before it is read": lambda: (
        b"GIF89a\x08\0\x08\0\0\0\0!\xf9\4\x08\0\0\0\0,"
        + struct.pack("<HHHHBB", 0, 0, 65535, 65535, 0, 8)
        + b"\1\0\0;"
    ),
    "a BMP that claims 30000 x 30000": lambda: patched(saved("BMP"), 18, "<ii", 30000, 30000),
    "a BMP of negative sides": lambda: patched(saved("BMP"), 18, "<ii", -8, -(2**31)),
    "a BMP whose pixels lie far away": lambda: patched(saved("BMP"), 10, "<I", 2**32 - 1),
    "a TIFF whose directory points to itself": lambda: (
        b"II*\0\x08\0\0\0" + struct.pack("<H HHII I", 1, 256, 4, 1, 8, 8)
    ),
    "a TIFF of 65535 tags": lambda: b"II*\0\x08\0\0\0\xff\xff" + bytes(12) * 100,
    "a WebP that claims 4 GiB": lambda: patched(saved("WEBP"), 4, "<I", 2**32 - 1),
    "a JPEG of 65535 x 65535": lambda: patched(
        saved("JPEG"), saved("JPEG").index(b"\xff\xc0") + 5, ">HH", 65535, 65535
    ),
    "a JPEG of no rows": lambda: patched(
        saved("JPEG"), saved("JPEG").index(b"\xff\xc0") + 5, ">HH", 0, 8
    ),
    # As large as a body may be: 64 MiB of base64.
    "a JPEG that is all markers": lambda: b"\xff\xd8" + b"\xff" * MOST,
    "a JPEG of empty segments": lambda: b"\xff\xd8" + b"\xff\xe2\0\2" * (MOST // 4),
    "a JPEG of stuffed bytes and no end": lambda: saved("JPEG")[:-60] + b"\xff\0" * (MOST // 2),
    "a JPEG of empty segments and no end": lambda: (
        saved("JPEG")[:-60] + b"\xff\xe2\0\2" * (MOST // 4)
    ),
    "a PNG of empty chunks": lambda: FILES[0][:33] + chunk(b"abCd", b"") * (MOST // 12),
    "a PNG of empty chunks behind its pixels": lambda: (
        FILES[0][:-12] + chunk(b"abCd", b"") * (MOST // 12)
    ),
    "a GIF of empty extensions": lambda: saved("GIF", mode="P")[:13] + b"!\xfe\0" * (MOST // 3),
    "a BMP of ends of lines": lambda: (
        patched(saved("BMP", mode="L"), 30, "<I", 1)[:1078] + bytes(MOST)
    ),
}


@pytest.mark.parametrize("name", CONSTRUCTED)
def test_a_file_made_to_harm_is_read_or_refused(name: str) -> None:
    data = CONSTRUCTED[name]()
    before = time.process_time()
    check_picture(data)
    assert time.process_time() - before < 20  # three readings, of a second each at most


def test_no_small_file_takes_much_memory() -> None:
    """In a process of its own, because what one has taken does not tell of the next file."""
    code = (
        "import resource; from tests.fuzz.test_corpus import *\n"
        "def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "check_picture(FILES[0]); before = used()\n"
        "for name, made in CONSTRUCTED.items():\n"
        "    if len(data := made()) < 2**20:\n"
        "        check_picture(data)\n"
        "    assert used() - before < 300, (name, used())\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)


def test_a_case_that_fails_is_kept_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "FOLDER", tmp_path)
    worker.keep("pictures", FILES[0], "Traceback\nValueError: why")
    assert "ValueError: why" in capsys.readouterr().out
    [kept] = [path for path in tmp_path.iterdir() if not path.suffix]
    assert kept.read_bytes() == FILES[0]
    worker.repeat(kept)

    def broken(data: bytes, max_pixels: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tests.fuzz.targets.decode", broken)
    with pytest.raises(ZeroDivisionError):
        worker.repeat(kept)


def test_the_same_seed_makes_the_same_cases() -> None:
    for target in (Pictures(), Requests()):
        first, second = (
            [target.case(rng) for _ in range(20)] for rng in (random.Random(3), random.Random(3))
        )
        assert first == second
