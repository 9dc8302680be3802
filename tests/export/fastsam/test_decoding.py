"""Outputs worked out by hand, and ultralytics' own reading of a real network's outputs."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import process_mask

from export.demo_masks.release import onnx_network
from export.fastsam.decoding import FloatArray, box_iou, decode, mask_iou, network_input, suppress
from export.scenes.masks import draw_scene

SIZE = 16


def predictions(*rows: tuple[float, float, float, float, float]) -> FloatArray:
    """Return detections whose mask is positive wherever the first prototype is."""
    array = np.zeros((37, len(rows)), np.float32)
    array[:5] = np.array(rows, np.float32).T
    array[5] = 1
    return array


def prototypes(first: npt.NDArray[np.floating[Any]]) -> FloatArray:
    stacked = np.zeros((32, 4, 4), np.float32)
    stacked[0] = first
    return stacked


def test_a_mask_is_where_the_logits_are_positive_within_the_box() -> None:
    left_half = np.where(np.arange(4) < 2, 1, -1) * np.ones((4, 1))
    found = decode(predictions((8, 8, 12, 8, 0.9)), prototypes(left_half), SIZE)
    np.testing.assert_array_equal(found.boxes, [[2, 4, 14, 12]])
    expected = np.zeros((SIZE, SIZE), bool)
    expected[4:12, 2:8] = True
    np.testing.assert_array_equal(found.masks[0], expected)


def test_unsure_and_overlapping_detections_go_and_the_surest_comes_first() -> None:
    everywhere = prototypes(np.ones((4, 4)))
    given = predictions(
        (4, 4, 6, 6, 0.5), (12, 12, 6, 6, 0.8), (12, 12, 6, 5, 0.9), (8, 8, 4, 4, 0.25)
    )
    found = decode(given, everywhere, SIZE)
    np.testing.assert_allclose(found.scores, [0.9, 0.5])
    np.testing.assert_array_equal(found.boxes[1], [1, 1, 7, 7])
    assert len(decode(given, everywhere, SIZE, confidence=0.2).scores) == 3
    assert len(decode(given, everywhere, SIZE, overlap=0.9).scores) == 3


def test_nothing_found_gives_empty_arrays() -> None:
    found = decode(predictions((8, 8, 4, 4, 0.1)), prototypes(np.ones((4, 4))), SIZE)
    assert found.boxes.shape == (0, 4)
    assert found.masks.shape == (0, SIZE, SIZE)


def test_suppression_keeps_a_box_that_only_a_suppressed_one_overlaps() -> None:
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10]], np.float32)
    assert suppress(boxes, 0.6) == [0, 2]
    assert suppress(boxes, 0.7) == [0, 1, 2]


@pytest.mark.parametrize(
    ("other", "iou"),
    [((0, 0, 2, 2), 1), ((1, 0, 3, 2), 1 / 3), ((2, 0, 4, 2), 0), ((5, 5, 5, 5), 0)],
)
def test_iou_of_boxes(other: tuple[float, ...], iou: float) -> None:
    box = np.array([0, 0, 2, 2], np.float32)
    assert box_iou(box, np.array([other], np.float32))[0] == pytest.approx(iou)


def test_iou_of_masks() -> None:
    ones, none = np.ones((2, 2), bool), np.zeros((2, 2), bool)
    assert mask_iou(ones, np.array([[True, False], [False, False]])) == 0.25
    assert mask_iou(ones, none) == 0
    assert mask_iou(none, none) == 1


@pytest.mark.parametrize(("confidence", "overlap"), [(0.25, 0.7), (0.05, 0.9)])
def test_reads_outputs_as_ultralytics_does(
    demo: onnx.ModelProto, confidence: float, overlap: float
) -> None:
    run = onnx_network(demo)
    compared = 0
    for seed in range(6):
        outputs = run(network_input(draw_scene(seed, 320).picture))
        found = decode(outputs[0][0], outputs[1][0], 320, confidence, overlap)
        (theirs,) = non_max_suppression(torch.from_numpy(outputs[0]), confidence, overlap, nc=1)
        np.testing.assert_allclose(found.boxes, theirs[:, :4], atol=1e-4)
        masks = process_mask(
            torch.from_numpy(outputs[1][0]), theirs[:, 6:], theirs[:, :4], (320, 320), upsample=True
        )
        differing = (found.masks != masks.numpy().astype(bool)).mean(axis=(1, 2))
        assert differing.max(initial=0) < 1e-4
        compared += len(found.boxes)
    assert compared > 15


def test_pictures_become_planes_of_fractions() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(1, 4, 3)
    planes = network_input(picture)
    assert planes.shape == (1, 3, 1, 4)
    np.testing.assert_allclose(planes[0, 1, 0], np.array([1, 4, 7, 10]) / 255)
