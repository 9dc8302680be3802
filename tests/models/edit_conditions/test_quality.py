import numpy as np
import pytest

from edit_conditions.quality import InputQuality, apply_quality, square_side
from model_kit.errors import CodedError

from .pictures import flat, noise


@pytest.mark.parametrize(
    ("longest", "side"),
    [
        (1, 512),
        (640, 512),
        (641, 768),
        (896, 768),
        (897, 1024),
        (1280, 1024),
        (1281, 1536),
        (1792, 1536),
        (1793, 2048),
        (4096, 2048),
    ],
)
def test_the_square_follows_the_longest_side(longest: int, side: int) -> None:
    assert square_side(longest) == side
    assert apply_quality(flat(longest, 1, 0), InputQuality.RESIZED, "IMAGE").shape[:2] == (
        side,
        side,
    )


def test_original_keeps_the_picture() -> None:
    pixels = noise(30, 20)
    assert apply_quality(pixels, InputQuality.ORIGINAL, "IMAGE") is pixels


def test_resized_centres_on_black_and_truncates() -> None:
    # 300x101 is enlarged by 512/300: 101 x 1.7066 = 172.37, so 172 rows after 170 black ones.
    square = apply_quality(flat(300, 101, 255), InputQuality.RESIZED, "IMAGE")
    rows = np.flatnonzero(square.any(axis=(1, 2)))
    assert (rows[0], rows[-1]) == (170, 341)
    assert (square[170:342] == 255).all()


def test_a_tall_picture_is_padded_at_its_sides_and_a_mask_stays_a_mask() -> None:
    square = apply_quality(flat(512, 1024, 255)[:, :, 0].copy(), InputQuality.RESIZED, "IMAGE")
    assert square.shape == (1024, 1024)
    assert np.flatnonzero(square.any(axis=0)).tolist() == list(range(256, 768))


def test_a_hairline_keeps_one_pixel() -> None:
    square = apply_quality(flat(1, 2000, 255), InputQuality.RESIZED, "IMAGE")
    assert (square.any(axis=2).sum(axis=1) == 1).all()


def test_only_an_unpadded_picture_can_be_too_elongated() -> None:
    assert apply_quality(flat(100, 1, 0), InputQuality.ORIGINAL, "IMAGE").shape == (1, 100, 3)
    with pytest.raises(CodedError, match="IMAGE: 1x101 is more elongated than 100:1"):
        apply_quality(flat(1, 101, 0), InputQuality.ORIGINAL, "IMAGE")
    assert apply_quality(flat(1, 101, 0), InputQuality.RESIZED, "IMAGE").shape == (512, 512, 3)
