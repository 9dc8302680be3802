"""Outlines are drawn where their points say, with holes."""

import numpy as np

from export.scenes.mask_outlines import Part, coverage, outline


def test_a_rectangle_covers_its_pixels_and_a_fraction_of_those_it_cuts() -> None:
    corners = np.array([[1.0, 1.0], [5.5, 1.0], [5.5, 3.0], [1.0, 3.0]])
    covered = coverage([Part(corners)], height=6, width=8)
    assert covered.shape == (6, 8)
    # fillPoly counts the rim as inside, up to half a pixel of ours.
    assert covered[1:3, 1:5].min() > 0.99
    assert 0.3 < covered[3, 1:5].min() <= covered[3, 1:5].max() < 0.7
    assert covered[4:].max() == 0
    assert covered[:, 7].max() == 0


def test_a_hole_is_cut_out_of_what_was_filled_before() -> None:
    square = np.array([[2.0, 2.0], [18.0, 2.0], [18.0, 18.0], [2.0, 18.0]])
    hole = (square - 10) / 2 + 10
    pierced = coverage([Part(square), Part(hole, filled=False)], 20, 20)
    assert pierced[10, 10] == 0
    assert pierced[10, 3] == 1
    filled_again = coverage([Part(hole, filled=False), Part(square)], 20, 20)
    assert filled_again[10, 10] == 1


def test_every_kind_of_outline_is_of_moderate_size() -> None:
    for seed in range(200):
        points = np.concatenate([part.points for part in outline(np.random.default_rng(seed))])
        assert np.isfinite(points).all()
        assert 0.3 < np.abs(points).max() < 2.6


def test_some_outlines_have_holes_and_some_several_parts() -> None:
    drawn = [outline(np.random.default_rng(seed)) for seed in range(200)]
    assert 5 < sum(not all(part.filled for part in parts) for parts in drawn) < 40
    assert 10 < sum(len(parts) > 1 for parts in drawn) < 80
