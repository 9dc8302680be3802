from __future__ import annotations

import io
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from image_edit.colours import BAND, PALE, fit, linear_of, srgb_of
from model_kit.pictures import Picture

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


@pytest.mark.parametrize("corner", [(30, 30), (45, 60), (60, 80)])
def test_a_channel_that_is_clipped_nearly_everywhere_does_not_lead_the_fit_astray(
    corner: tuple[int, int],
) -> None:
    """Strong red light on a light ground with a dark corner that is not clipped."""
    rows, columns = np.mgrid[0:120, 0:160] / 160
    right = np.stack([190 + 60 * rows, 175 + 60 * columns, 200 + 40 * rows], axis=-1)
    right[-corner[0] :, -corner[1] :] = (60, 30, 90)
    right = right.astype(np.uint8)
    before = in_light(right, np.diag([3.0, 0.6, 0.5]).astype(np.float32))
    assert (before[..., 0] == 255).mean() > 0.7
    found = fit(before, right).apply(before)
    assert np.abs(found.astype(int) - right).mean() < 6


def in_daylight_and_warm(*, noise: float = 0) -> tuple[Pixels, Pixels, Pixels]:
    """A scene as it is, as a model draws it, and with a warm cast that clips nothing."""
    right = scene().copy()
    rough = right + np.random.default_rng(1).normal(0, noise, right.shape)
    drawn = np.clip(np.rint(rough), 0, 255).astype(np.uint8)
    return right, drawn, in_light(right, np.diag([1.0, 0.75, 0.45]).astype(np.float32))


@pytest.mark.parametrize("noise", [0, 6])
@pytest.mark.parametrize("shade", [0, 255])
@pytest.mark.parametrize("part", [0.01, 0.06, 0.25, 0.6, 0.8])
def test_blown_white_and_black_tell_nothing_of_the_light(
    part: float, shade: int, noise: float
) -> None:
    right, drawn, before = in_daylight_and_warm(noise=noise)
    covered = np.zeros(right.shape[:2], np.bool_)
    covered[: round(120 * part**0.5), : round(160 * part**0.5)] = True
    for picture in (right, drawn, before):
        picture[covered] = shade
    found = fit(before, drawn).apply(before)
    assert np.abs(before.astype(int) - right)[~covered].mean() > 10
    assert np.abs(found.astype(int) - right)[~covered].mean() < 1
    assert (found[covered] == shade).all()


def test_what_lies_beside_blown_white_tells_little() -> None:
    """A JPEG's coarser colours mix a window's white with the wall around it."""
    _, drawn, before = in_daylight_and_warm()
    window = np.zeros(drawn.shape[:2], np.float32)
    window[20:80, 30:110] = 1
    light = cv2.GaussianBlur(window, (0, 0), 2)[..., np.newaxis]
    before, drawn = (
        srgb_of(linear_of(picture) * (1 - light) + 4 * light) for picture in (before, drawn)
    )
    data = io.BytesIO()
    Image.fromarray(before).save(data, "JPEG", quality=85)
    before = np.asarray(Image.open(data))
    found = fit(before, drawn).apply(before)
    assert np.abs(found.astype(int) - drawn)[window == 0].mean() < 4


@pytest.mark.parametrize("opaque", [0.7, 0.39, 0.1])
@pytest.mark.parametrize("alpha", [60, 255])
def test_what_is_transparent_tells_nothing_of_the_light(opaque: float, alpha: int) -> None:
    right, _, before = in_daylight_and_warm()
    transparency = np.zeros(right.shape[:2], np.uint8)
    transparency[: round(120 * opaque)] = alpha
    seen, drawn = (Picture(colours, transparency, None).shown() for colours in (before, right))
    found = fit(seen, drawn, transparency).apply(before)
    there = transparency > 0
    assert np.abs(found.astype(int) - right)[there].mean() < 1


@pytest.mark.parametrize(
    ("before", "after", "alpha"),
    [(255, 255, 255), (255, 90, 255), (251, 240, 255), (0, 0, 255), (0, 40, 255), (255, 90, 0)],
)
def test_where_nothing_tells_of_the_light_nothing_changes(
    before: int, after: int, alpha: int
) -> None:
    one, other = (np.full((40, 50, 3), shade, np.uint8) for shade in (before, after))
    change = fit(one, other, np.full((40, 50), alpha, np.uint8))
    assert np.array_equal(change.apply(scene()), scene())


def test_blown_white_stays_white_and_the_change_fades_towards_it() -> None:
    change = fit(scene(), in_light(scene(), WARM))
    ramp = np.arange(PALE - 40, 256, dtype=np.uint8)[np.newaxis, :, np.newaxis].repeat(3, axis=2)
    found = change.apply(ramp)[0].astype(int)
    assert found[-1].tolist() == [255, 255, 255]
    own = in_light(ramp, WARM)[0].astype(int)
    # In full up to there; beyond, red rises to white in even steps.
    assert np.abs(found - own)[: 41 - 1].max() <= 3
    assert np.diff(found[40:, 0]).min() >= 0
    assert np.diff(found[40:, 0]).max() <= 2 * (255 - own[40, 0]) / (255 - PALE)


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
