"""Detections, masks and choices equal those of ultralytics' FastSAM on the same network output.

What differs on purpose is not compared: a click takes one mask where ultralytics returns every
mask that holds it, and a box that overlaps nothing finds nothing.
"""

from __future__ import annotations

import types
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from skimage import data as photographs

from export.fastsam import yolo
from fastsam.network import Network
from smart_mask import selection as mask_selection
from smart_mask.features import Features, read_features
from smart_mask.letterbox import Floats, Letterbox, Pixels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMPTS = 12  # boxes and as many clicks, for each picture and each pair of thresholds
# Rounding decides about pixels halfway between two others, and so between two masks whose
# intersection over union with a box differs by less.
TIE = 1e-3
THRESHOLDS = [(0.25, 0.7), (0.05, 0.9)]


@dataclass(frozen=True)
class Seen:
    """One network output as both see it."""

    features: Features
    predictor: Any
    results: Any
    """Of ultralytics, without prompts."""
    picture: Pixels

    def theirs(self, **prompts: Any) -> tuple[Floats, Pixels]:
        """Scores and letterboxed masks that ultralytics answers prompts with."""
        result = self.predictor.prompt(self.results, **prompts)[0]
        if result.masks is None:  # nothing was found, whatever is asked for
            side = self.features.letterbox.side
            return np.zeros(0, np.float32), np.zeros((0, side, side), np.uint8)
        return result.boxes.conf.numpy(), result.masks.data.numpy()

    def filled(self) -> list[int]:
        """Our detections that have a mask at the network's size; theirs lack all others."""
        side = self.features.letterbox.side
        square = replace(self.features, letterbox=Letterbox.fit(side, side, side))
        return [index for index in range(len(square.scores)) if square.mask(index).any()]

    def iou(self, index: int, box: Floats) -> float:
        """Of a mask with a box."""
        mask = self.features.mask(index) > 0
        height, width = mask.shape
        left, top, right, bottom = box.astype(int).clip(0, [width, height] * 2).tolist()
        inside = np.count_nonzero(mask[top:bottom, left:right])
        union = (right - left) * (bottom - top) + np.count_nonzero(mask) - inside
        return float(inside / union)


@pytest.fixture(scope="module")
def network(mask_bundle: Path) -> Network:
    return Network(mask_bundle, "float32")


def pictures() -> Iterator[Pixels]:
    yield photographs.rocket()  # 640 x 427
    yield photographs.coffee()  # 600 x 400
    yield photographs.astronaut()[:511, :333]
    yield np.repeat(photographs.coins()[:, :, None], 3, axis=2)  # 384 x 303
    yield np.random.default_rng(0).integers(0, 256, (97, 400, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=THRESHOLDS, ids=str)
def seen(network: Network, request: pytest.FixtureRequest) -> list[Seen]:
    confidence, iou = request.param
    both = []
    for picture in pictures():
        letterbox = Letterbox.fit(picture.shape[1], picture.shape[0], network.side)
        predictions, prototypes = network.run(letterbox.apply(picture))
        # Halves as they are kept: what this costs is not the question here.
        predictions[0, 5:] = predictions[0, 5:].astype(np.float16)
        prototypes = prototypes.astype(np.float16).astype(np.float32)
        features = read_features(
            letterbox, predictions[0], prototypes[0], confidence=confidence, iou=iou, most=300
        )
        predictor = yolo.FastSAMPredictor(
            overrides={"conf": confidence, "iou": iou, "max_det": 300, "task": "segment"}
        )
        predictor.model = types.SimpleNamespace(names={0: "object"})
        predictor.device = torch.device("cpu")
        predictor.batch = [["picture"]]
        outputs = [torch.from_numpy(predictions), torch.from_numpy(prototypes)]
        side = torch.zeros(1, 3, network.side, network.side)
        results = predictor.postprocess(outputs, side, [picture])
        both.append(Seen(features, predictor, results, picture))
    return both


def test_the_detections_are_the_same(seen: list[Seen]) -> None:
    for each in seen:
        scores, _ = each.theirs()
        assert each.features.scores[each.filled()].tolist() == scores.tolist()
    assert sum(len(each.features.scores) for each in seen) > 30


def test_the_masks_are_the_same_pixel_by_pixel(seen: list[Seen]) -> None:
    for each in seen:
        _, masks = each.theirs()
        whole = yolo.scale_masks(torch.from_numpy(masks)[None].float(), each.picture.shape[:2])[
            0
        ].numpy()
        ours = [each.features.mask(index) for index in each.filled()]
        for mask, their in zip(ours, whole, strict=True):
            # Rounding decides about pixels that lie halfway between two others.
            sure = np.abs(their - 0.5) > 1e-4
            assert sure.mean() > 0.995
            assert ((mask > 0) == (their > 0.5))[sure].all()


def test_boxes_choose_the_same_mask(seen: list[Seen]) -> None:
    compared = same = 0
    for number, each in enumerate(seen):
        random = np.random.default_rng(number)
        height, width = each.picture.shape[:2]
        for _ in range(PROMPTS):
            corners = random.uniform(-20, [width + 20, height + 20], (2, 2))
            box = np.concatenate([corners.min(axis=0), corners.max(axis=0) + 1]).astype(np.float32)
            index = mask_selection.by_box(each.features, box, lambda: None)
            if index is not None:
                scores, _ = each.theirs(bboxes=[box.tolist()])
                their = each.features.scores.tolist().index(scores.item())
                assert each.iou(index, box) > each.iou(their, box) - TIE, (number, box)
                same += index == their
                compared += 1
    assert compared > 2 * PROMPTS
    assert same >= 0.97 * compared


def test_clicks_choose_one_of_the_masks_that_hold_them(seen: list[Seen]) -> None:
    compared = 0
    for number, each in enumerate(seen):
        random = np.random.default_rng(number)
        height, width = each.picture.shape[:2]
        for count in range(PROMPTS):
            # Theirs moves one outside to the border, where it finds what was not meant.
            points = random.uniform(0, [width, height], (1 + count % 2, 2))
            labels = np.arange(len(points)) == 0  # every second click has a negative point beside
            index = mask_selection.by_points(each.features, points.astype(np.float32), labels)
            scores, _ = each.theirs(points=points.tolist(), labels=labels.astype(int).tolist())
            assert (index is None) == (len(scores) == 0), (number, points)
            if index is not None:
                # A score names its detection: no two are the same.
                assert float(each.features.scores[index]) in scores.tolist(), (number, points)
                compared += 1
    assert compared > PROMPTS
