from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from image_edit.colours import BAND, fit, linear_of, srgb_of

if TYPE_CHECKING:
    from image_edit.conditions import Pixels

WARM = np.diag([0.72, 1.0, 1.5]).astype(np.float32)
Floats = npt.NDArray[np.float32]


def scene(size: tuple[int, int] = (160, 120), seed: int = 0) -> Pixels:
    rough = np.random.default_rng(seed).integers(30, 200, (12, 16, 3), np.uint8)
    return np.asarray(Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC))


def in_light(picture: Pixels, matrix: Floats) -> Pixels:
    return srgb_of(linear_of(picture) @ matrix.T)


def worst(found: Pixels, right: Pixels) -> int:
    """In shades; clipped pixels say nothing."""
    inside = (right > 4).all(axis=2) & (right < 251).all(axis=2)
    return int(np.abs(found.astype(int) - right)[inside].max())


def test_srgb_and_back_loses_nothing() -> None:
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(srgb_of(linear_of(ramp)), ramp)


def test_other_light_is_found_and_applied_at_full_size() -> None:
    change = fit(scene(), in_light(scene(), WARM))
    large = scene((900, 700))
    assert worst(change.apply(large), in_light(large, WARM)) <= 3


def test_what_a_model_draws_anew_does_not_change_the_light() -> None:
    after = in_light(scene(), WARM)
    noise = np.random.default_rng(1)
    after = np.clip(after + noise.normal(0, 6, after.shape), 0, 255).astype(np.uint8)
    after[20:50, 30:70] = noise.integers(0, 256, 3, np.uint8)  # an object that was not there
    found = fit(scene(), after).apply(scene())
    assert np.abs(found.astype(int) - in_light(scene(), WARM)).mean() <= 2


def test_a_channel_that_is_clipped_nearly_everywhere_does_not_lead_the_fit_astray() -> None:
    """Strong red light on a light ground with a dark corner that is not clipped."""
    rows, columns = np.mgrid[0:120, 0:160] / 160
    right = np.stack([190 + 60 * rows, 175 + 60 * columns, 200 + 40 * rows], axis=-1)
    right[90:, 130:] = (60, 30, 90)
    right = right.astype(np.uint8)
    before = in_light(right, np.diag([3.0, 0.6, 0.5]).astype(np.float32))
    assert (before[..., 0] == 255).mean() > 0.9
    found = fit(before, right).apply(before)
    assert np.abs(found.astype(int) - right).mean() < 6


def test_light_that_differs_from_side_to_side_is_followed() -> None:
    picture = scene((240, 160))
    ramp = np.linspace(0.8, 1.2, 240, dtype=np.float32)[np.newaxis, :, np.newaxis]
    light: Floats = ramp * np.array([1, 1, 0.8], np.float32)
    after = srgb_of(linear_of(picture) * light)
    found = fit(picture, after).apply(picture)
    assert np.abs(found.astype(int) - after).mean() <= 3


@pytest.mark.parametrize("shade", [0, 3, 127, 252, 255])
def test_a_plain_picture_stays_finite_and_near(shade: int) -> None:
    plain = np.full((40, 50, 3), shade, np.uint8)
    assert np.abs(fit(plain, plain).apply(plain).astype(int) - shade).max() <= 1


def test_detail_stays_where_no_light_changes() -> None:
    noise = np.random.default_rng(2).integers(20, 235, (BAND + 33, 70, 3), np.uint8)
    found = fit(scene(), scene()).apply(noise)
    assert np.abs(found.astype(int) - noise).max() <= 1
