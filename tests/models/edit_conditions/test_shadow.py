import numpy as np
import pytest

from edit_conditions.shadow import cast_shadow, darken, expand_mask

from .pictures import flat, mask_with


def test_the_shadow_is_the_shifted_object_faded_in_downwards() -> None:
    shadow = cast_shadow(mask_with(40, 40, (10, 10, 8, 5)))
    assert shadow.dtype == np.float32
    assert shadow[15:20, 13].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (shadow[15:20, 13:21] == shadow[15:20, 13:14]).all()
    assert np.count_nonzero(shadow) == 4 * 8


def test_soft_pixels_up_to_127_cast_none() -> None:
    assert not cast_shadow(np.full((20, 20), 127, dtype=np.uint8)).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 6)])
def test_a_picture_smaller_than_the_shift_has_room_for_no_shadow(size: tuple[int, int]) -> None:
    shadow = cast_shadow(np.full(size[::-1], 255, dtype=np.uint8))
    assert shadow.shape == size[::-1]
    assert np.count_nonzero(shadow) == 0


def test_darkening_spares_the_object_and_what_is_far_from_it() -> None:
    image = flat(120, 120, 200)
    mask = mask_with(120, 120, (40, 20, 40, 40))
    shadow = np.ones_like(mask, dtype=np.float32)
    darkened = darken(image, mask, shadow)
    assert (darkened[mask > 0] == 200).all()
    assert (darkened[mask == 0] == 120).all()
    real = darken(image, mask, cast_shadow(mask))
    assert (real[100:] == 200).all()
    # Just below the object the blurred shadow is about half as dark as it can be.
    assert 120 < real[62, 60, 0] < 180


def test_the_mask_grows_by_its_shadow_and_three_pixels_and_stays_soft() -> None:
    mask = mask_with(60, 60, (20, 20, 10, 10))
    mask[5, 5] = 90
    expanded = expand_mask(mask, cast_shadow(mask))
    assert expanded[5, 8] == 90
    columns, rows = (np.flatnonzero((expanded == 255).any(axis=axis)) for axis in (0, 1))
    # The object covers 20..29; the shadow's last row, the only one at full strength, is 34.
    assert (columns[0], columns[-1]) == (17, 32 + 3)
    assert (rows[0], rows[-1]) == (17, 34 + 3)


def test_a_shadow_is_as_large_in_the_picture_however_small_the_model_sees_it() -> None:
    large = mask_with(240, 240, (80, 80, 40, 40))
    small = mask_with(60, 60, (20, 20, 10, 10))
    reaches = []
    for mask, scale in ((large, 1.0), (small, 0.25)):
        shadow = cast_shadow(mask, scale)
        lit = darken(np.full((*mask.shape, 3), 200, np.uint8), mask, shadow, scale)
        dark = np.flatnonzero((lit < 198).any(axis=(0, 2)))
        grown = np.flatnonzero((expand_mask(mask, shadow, scale) == 255).any(axis=0))
        reaches.append(np.array([grown[0], grown[-1], dark[-1]]) / scale)
    assert np.abs(reaches[0] - reaches[1]).max() <= 4  # one pixel of the smaller one
