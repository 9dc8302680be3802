import numpy as np

from edit_conditions.edges import canny

from .pictures import flat


def test_a_step_becomes_one_line() -> None:
    image = flat(40, 30, 60)
    image[:, 20:] = 180
    edges = canny(image)
    assert set(np.unique(edges)) == {0, 255}
    assert np.flatnonzero(edges.any(axis=0)).size == 1
    assert 18 <= np.flatnonzero(edges.any(axis=0))[0] <= 21


def test_a_flat_picture_has_no_edges() -> None:
    assert not canny(flat(20, 20, 128)).any()
    assert not canny(flat(20, 20, 0)).any()


def test_the_thresholds_follow_the_median() -> None:
    # Filtered, a step of 60 has a gradient of 112: above 1.33 x 60, below 0.67 x 180.
    dark, bright = flat(40, 40, 60), flat(40, 40, 180)
    dark[:, 30:] = 120
    bright[:, 30:] = 240
    assert canny(dark).any()
    assert not canny(bright).any()
