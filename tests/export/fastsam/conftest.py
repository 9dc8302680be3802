"""Networks that several tests of export use."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.fastsam import checkpoint as fastsam_checkpoint
from export.fastsam.bundle import DEMO, NETWORK
from export.fastsam.decoding import FloatArray, network_input
from export.fastsam.untrained import write_untrained
from export.scenes.masks import draw_scene


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide an untrained checkpoint of FastSAM-s that finds things in the scene of seed 0."""
    path = tmp_path_factory.mktemp("checkpoint") / "FastSAM-s.pt"
    write_untrained(path, "FastSAM-s", 320, picture=draw_scene(0, 320).picture)
    return path


@pytest.fixture(scope="session")
def network(checkpoint: Path) -> Any:
    """Provide the network in that checkpoint."""
    return fastsam_checkpoint.open_checkpoint(checkpoint)


@pytest.fixture(scope="session")
def exported(network: Any) -> onnx.ModelProto:
    """Provide the ONNX network exported from that network, for images of 320 x 320."""
    return fastsam_checkpoint.export_onnx(network, 320)


@pytest.fixture(scope="session")
def images() -> FloatArray:
    """Three scenes as a batch."""
    return np.concatenate([network_input(draw_scene(seed, 320).picture) for seed in range(3)])


@pytest.fixture(scope="session")
def demo() -> onnx.ModelProto:
    """Provide the shipped network."""
    return onnx.load(DEMO / NETWORK)
