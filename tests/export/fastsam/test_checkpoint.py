"""Opening a checkpoint runs no code of it; the exported network equals PyTorch's."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.errors import ExportError
from export.fastsam.checkpoint import export_onnx, open_checkpoint
from export.fastsam.decoding import FloatArray
from export.fastsam.onnx_network import anchors, image_size
from tests.export.fastsam.networks import borders, expected_borders, run


def test_equals_pytorch(network: Any, exported: onnx.ModelProto, images: FloatArray) -> None:
    with torch.no_grad():
        (predictions, prototypes), _ = network(torch.from_numpy(images))
    found = run(exported, images)
    # Random weights amplify rounding errors more than trained weights do.
    np.testing.assert_allclose(found[0][:, :4], predictions[:, :4], atol=0.2)
    np.testing.assert_allclose(found[0][:, 4:], predictions[:, 4:], atol=5e-3)
    np.testing.assert_allclose(found[1], prototypes, atol=5e-3)


def test_a_batch_equals_its_images_one_by_one(
    exported: onnx.ModelProto, images: FloatArray
) -> None:
    together = run(exported, images)
    for index, image in enumerate(images):
        alone = run(exported, image[None])
        for whole, single in zip(together, alone, strict=True):
            np.testing.assert_allclose(whole[index], single[0], atol=1e-3)


@pytest.mark.parametrize(("size", "count"), [(320, 2100), (640, 8400), (1024, 21504)])
def test_sizes_are_fixed_and_the_batch_is_free(network: Any, size: int, count: int) -> None:
    assert anchors(size) == count
    exported = export_onnx(network, size)
    assert borders(exported) == expected_borders(size)
    assert image_size(exported) == size


def test_operators_are_standard_and_weights_are_all_initializers(exported: onnx.ModelProto) -> None:
    assert {opset.domain for opset in exported.opset_import} == {""}
    operators = {node.op_type for node in exported.graph.node}
    assert not operators & {"Constant", "Identity", "If", "Loop", "NonMaxSuppression"}


def test_exporting_leaves_the_network_as_it_was(network: Any) -> None:
    before = network.state_dict().keys()
    export_onnx(network, 64)
    assert network.state_dict().keys() == before
    assert not network.model[-1].export


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no zip", "network", "code"])
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path, content: object) -> None:
    path = tmp_path / "FastSAM-s.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "network":
        torch.save({"model": torch.nn.Linear(2, 2)}, path)
    elif content == "code":
        torch.save({"model": _Touches(tmp_path / "ran")}, path)
    with pytest.raises(ExportError, match=r"FastSAM-s\.pt: ") as refused:
        open_checkpoint(path)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()


class _Touches:
    """Runs code when it is unpickled, as a malicious checkpoint would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)
