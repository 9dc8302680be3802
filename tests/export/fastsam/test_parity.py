"""The parity report calls an equal network equal, and a changed one changed."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.fastsam.checkpoint import export_onnx, open_checkpoint
from export.fastsam.parity import compare
from export.fastsam.untrained import write_untrained


def test_an_exported_network_is_equal(network: Any, exported: onnx.ModelProto) -> None:
    report = compare(network, exported, scenes=2)
    assert report["image_size"] == 320
    for name, limit in {"boxes": 0.2, "scores": 1e-3, "coefficients": 5e-3}.items():
        assert 0 <= report["difference"][name]["mean"] <= report["difference"][name]["max"] < limit
    assert report["masks"]["compared"] >= 20
    assert report["masks"]["min_iou"] > 0.9
    assert report["versions"].keys() == {"torch", "onnx", "onnxruntime"}


def test_where_the_network_is_sure_of_nothing_its_best_guesses_are_compared(tmp_path: Path) -> None:
    write_untrained(tmp_path / "silent.pt", "FastSAM-s", 320)
    silent = open_checkpoint(tmp_path / "silent.pt")
    report = compare(silent, export_onnx(silent, 320), scenes=1)
    assert report["masks"]["compared"] > 0
    assert report["difference"]["scores"]["max"] < 1e-6


@pytest.mark.parametrize("part", ["cv2", "cv4", "proto"])
def test_a_changed_weight_shows(network: Any, exported: onnx.ModelProto, part: str) -> None:
    changed = onnx.ModelProto()
    changed.CopyFrom(exported)
    for weight in changed.graph.initializer:
        if f"model.22.{part}." in weight.name and weight.name.endswith("weight"):
            values = numpy_helper.to_array(weight) * np.float32(1.3)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    report = compare(network, changed, scenes=1)
    name = {"cv2": "boxes", "cv4": "coefficients", "proto": "prototypes"}[part]
    assert report["difference"][name]["max"] > 0.01
    assert report["difference"]["scores"]["max"] < 1e-3
    assert report["masks"]["mean_iou"] < 0.999
