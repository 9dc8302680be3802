from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from skimage import data as photographs

from fastsam.network import Floats, Network
from model_kit.errors import CodedError
from model_kit.parameters import Parameters
from smart_mask.features import read_features
from smart_mask.letterbox import Letterbox

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def network(mask_bundle: Path) -> Network:
    return Network(mask_bundle, "float32")


def pictures(side: int, count: int = 2) -> Floats:
    """Parts of a photograph."""
    photograph = photographs.astronaut()[:, :, :3]
    fitted = [
        Letterbox.fit(400, 400, side).apply(photograph[100 - 50 * i : 500 - 50 * i, :400])
        for i in range(count)
    ]
    return np.concatenate(fitted)


def test_the_outputs_are_those_of_onnxruntime(network: Network, mask_bundle: Path) -> None:
    images = pictures(network.side)
    session = onnxruntime.InferenceSession(mask_bundle / "network.onnx")
    for ours, theirs in zip(
        network.run(images), session.run(None, {"images": images}), strict=True
    ):
        assert ours.dtype == np.float32
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < 0.01


def test_each_image_of_a_batch_is_answered_as_if_alone(network: Network) -> None:
    images = pictures(network.side, count=3)
    together = network.run(images)
    for index in range(3):
        alone = network.run(images[index : index + 1])
        assert all((a[0] == b[index]).all() for a, b in zip(alone, together, strict=True))


def test_the_precision_of_this_processor_gives_the_same_masks(
    network: Network, mask_bundle: Path
) -> None:
    letterbox = Letterbox.fit(400, 400, network.side)
    images = pictures(network.side)
    outputs = [each.run(images) for each in (network, Network(mask_bundle, "auto"))]
    for index in range(len(images)):
        exact, quick = (
            read_features(
                letterbox, predictions[index], prototypes[index], confidence=0.4, iou=0.7, most=300
            )
            for predictions, prototypes in outputs
        )
        assert len(exact.scores) > 0
        for number in range(len(exact.scores)):
            mask = exact.mask(number) > 0
            others = [quick.mask(i) > 0 for i in range(len(quick.scores))]
            best = max((mask & other).sum() / (mask | other).sum() for other in others)
            assert best > 0.95


def test_an_image_of_another_size_is_refused(network: Network) -> None:
    with pytest.raises(CodedError, match=r"^\[INVALID_ARGUMENT\] images: must be \[n, 3, "):
        network.run(np.zeros((1, 3, 64, 64), np.float32))


def test_an_unknown_precision_is_refused(mask_bundle: Path) -> None:
    with pytest.raises(ValueError, match="PRECISION must be auto or float32, not 'half'"):
        Network.from_parameters(Parameters({"BUNDLE": ".", "PRECISION": "half"}, mask_bundle))


@pytest.mark.parametrize("manifest", [None, {}, {"network": "network.onnx", "image_size": "big"}])
def test_an_unreadable_bundle_is_named(tmp_path: Path, manifest: object) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"BUNDLE: .* cannot be read"):
        Network(tmp_path, "auto")
