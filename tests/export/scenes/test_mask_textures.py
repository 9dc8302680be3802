"""Textures have the wanted size, range and base colour."""

import numpy as np
import pytest

from export.scenes.mask_textures import clouds, colour, similar, texture

SEEDS = range(40)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 50), (64, 64)])
def test_textures_fill_any_rectangle_with_colours(height: int, width: int) -> None:
    for seed in SEEDS:
        surface = texture(np.random.default_rng(seed), height, width)
        assert surface.shape == (height, width, 3)
        assert surface.dtype == np.float32
        assert surface.min() >= 0
        assert surface.max() <= 255


def test_textures_differ_and_some_are_flat() -> None:
    spreads = [
        texture(np.random.default_rng(seed), 32, 32).std(axis=(0, 1)).max() for seed in SEEDS
    ]
    assert 2 <= sum(spread == 0 for spread in spreads) <= 20
    assert sum(spread > 5 for spread in spreads) >= 10


def test_the_base_colour_shows_in_every_texture() -> None:
    base = np.array([200, 40, 90], np.float32)
    for seed in SEEDS:
        surface = texture(np.random.default_rng(seed), 48, 48, base)
        assert np.abs(surface - base).max(axis=2).min() < 60


def test_clouds_stay_within_bounds_and_get_finer_by_octaves() -> None:
    coarse = clouds(np.random.default_rng(1), 64, 64, octaves=1, cells=2)
    fine = clouds(np.random.default_rng(1), 64, 64, octaves=5, cells=2)
    for noise in (coarse, fine):
        assert noise.min() >= 0
        assert noise.max() <= 1
    assert np.abs(np.diff(fine)).mean() > np.abs(np.diff(coarse)).mean()


def test_similar_colours_lie_near_and_within_range() -> None:
    rng = np.random.default_rng(2)
    of = colour(rng)
    drawn = np.array([similar(rng, of, 5) for _ in range(200)])
    assert np.abs(drawn.mean(axis=0) - of).max() < 3
    assert drawn.min() >= 0
    assert drawn.max() <= 255
