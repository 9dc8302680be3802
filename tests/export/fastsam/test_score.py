"""A network that knows the answer scores 1, and an object that it misses counts as 0."""

import numpy as np
import pytest

from export.fastsam import score as mask_score
from export.fastsam.decoding import FloatArray
from export.fastsam.score import held_out_scenes, innermost, score
from export.scenes.masks import Scene

SIZE = 64


def scene() -> Scene:
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[8:24, 8:24], labels[32:56, 24:64] = 1, 2
    return Scene(np.zeros((SIZE, SIZE, 3), np.uint8), labels)


def answering(*detections: tuple[float, float, float, float, float]) -> mask_score.RunNetwork:
    """Return a network that always finds these boxes, filled."""
    predictions = np.zeros((1, 37, len(detections)), np.float32)
    predictions[0, :5] = np.array(detections, np.float32).T
    predictions[0, 5] = 1

    def run(images: FloatArray) -> tuple[FloatArray, FloatArray]:
        assert images.shape == (1, 3, SIZE, SIZE)
        return predictions, np.ones((1, 32, SIZE // 4, SIZE // 4), np.float32)

    return run


def test_the_right_answer_scores_one() -> None:
    right = answering((16, 16, 16, 16, 0.9), (44, 44, 40, 24, 0.8))
    scored = score(right, [scene()], confidence=0.25)
    assert (scored.scenes, scored.objects) == (1, 2)
    assert scored.click_mean == scored.click_median == scored.box_mean == 1
    assert scored.click_missed == 0


def test_a_missed_object_counts_as_zero() -> None:
    scored = score(answering((16, 16, 16, 16, 0.9)), [scene(), scene()], confidence=0.25)
    assert scored.objects == 4
    assert (scored.click_mean, scored.click_missed, scored.box_mean) == (0.5, 0.5, 0.5)
    assert score(answering((16, 16, 16, 16, 0.9)), [scene()], 0.95).click_missed == 1


def test_a_click_takes_the_surest_mask_and_a_box_the_one_that_fits() -> None:
    both = answering((16, 16, 16, 16, 0.5), (20, 16, 24, 16, 0.9), (44, 44, 40, 24, 0.8))
    scored = score(both, [scene()], confidence=0.25)
    assert scored.click_mean == pytest.approx((16 / 24 + 1) / 2)
    assert scored.box_mean == 1


def test_the_innermost_pixel_is_deepest_and_the_pictures_edge_is_a_rim() -> None:
    mask = np.zeros((9, 20), bool)
    mask[:, 15:] = True
    assert innermost(mask)[0] == 17
    mask = np.zeros((20, 20), bool)
    mask[2:9, 3:10] = True
    assert innermost(mask) == (6, 5)


def test_held_out_scenes_are_none_of_training() -> None:
    first, second = held_out_scenes(2, SIZE)
    assert (first.picture != second.picture).any()
    assert mask_score.FIRST_HELD_OUT > 10**6 * 10**5
