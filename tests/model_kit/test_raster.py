from __future__ import annotations

import numpy as np
import pytest

from model_kit import raster
from model_kit.image_bounds import MAX_SIDE

RNG = np.random.default_rng(0)
COLOURS, ALPHA = (RNG.integers(0, 256, shape, np.uint8) for shape in ((5, 7, 3), (5, 7)))


def joined(*arguments: object) -> bytes:
    return b"".join(map(bytes, raster.write(*arguments)))  # type: ignore[arg-type]


@pytest.mark.parametrize("alpha", [None, ALPHA], ids=["opaque", "alpha"])
@pytest.mark.parametrize("profile", [None, b"profile"])
def test_what_was_written_is_read(alpha: raster.Pixels | None, profile: bytes | None) -> None:
    data = joined(COLOURS, alpha, profile)
    assert raster.is_raster(data)
    assert raster.size_of(data) == (7, 5)
    assert raster.has_profile(data) == (profile is not None)
    colours, read_alpha, read_profile = raster.read(data, 35)
    assert (colours == COLOURS).all()
    assert read_profile == profile
    assert (read_alpha is None) == (alpha is None)
    if read_alpha is not None:
        assert (read_alpha == ALPHA).all()


def test_a_mask_has_one_plane() -> None:
    data = joined(ALPHA[:, ::-1])  # not contiguous
    mask, alpha, profile = raster.read(data, 35)
    assert (mask == ALPHA[:, ::-1]).all()
    assert alpha is None
    assert profile is None


def test_files_are_no_plain_pixels() -> None:
    assert not any(raster.is_raster(start) for start in (b"", b"\x89PNG", b"\xff\xd8\xff"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (raster.MAGIC, "without a whole head"),
        (joined(COLOURS)[:-1], "plain pixels of 7x5 with 3 planes and a profile of 0 bytes, in"),
        (joined(COLOURS) + b"\0", "plain pixels of 7x5"),
        (joined(COLOURS)[:16] + b"\2" + joined(COLOURS)[17:], "with 2 planes"),
        (joined(np.zeros((0, 7, 3), np.uint8)), "plain pixels of 7x0"),
        (joined(np.zeros((5, 8, 3), np.uint8)), "8x5 is more than the 35 pixels allowed"),
    ],
)
def test_what_is_not_what_its_head_says_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(raster.RasterError, match=reason):
        raster.read(data, 35)


def test_a_side_is_bounded() -> None:
    with pytest.raises(raster.RasterError, match="65536x1 is longer than the 65535 pixels"):
        raster.read(joined(np.zeros((1, MAX_SIDE + 1), np.uint8)), 2**20)
