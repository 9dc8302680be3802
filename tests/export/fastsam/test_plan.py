"""What stands around TensorRT's builder: files, refusals, and the model's config."""

import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto

from export import manifest
from export.fastsam import plan as fastsam_plan
from export.fastsam.bundle import place
from export.fastsam.checkpoint import export_onnx
from export.fastsam.plan import build_plan, check_config
from export.fastsam.tensorrt_builder import FLOAT32, PlanError

REPOSITORY = Path(__file__).parents[3] / "model_repository"
CONFIG = REPOSITORY / "fastsam" / "config.pbtxt"
SHAPES = {"images": [3, 1024, 1024], "output0": [37, 21504], "output1": [32, 256, 256]}


class Builder:
    """Stands in for TensorRT and a GPU, which tests/gpu uses for real."""

    def __init__(self) -> None:
        self.version, self.device, self.compute_capability = "10.9.0", "NVIDIA A100", "8.0"
        self.fault: str | None = None
        self.built_type = FLOAT32
        self.builds = 0

    def build(
        self, network: bytes, batches: tuple[int, int, int], size: int, timings: bytes
    ) -> tuple[bytes, bytes]:
        if self.fault:
            raise PlanError(self.fault)
        self.network, self.batches, self.size = onnx.load_from_string(network), batches, size
        self.timings = timings
        self.builds += 1
        return b"plan", b"timings"

    def tensors(self, plan: bytes, names: Iterable[str]) -> dict[str, tuple[str, list[int]]]:
        assert plan == b"plan"
        return {name: (self.built_type, [-1, *SHAPES[name]]) for name in names}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, network: Any) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "fastsam"
    place(folder, "FastSAM-s", "a test", 1024, export_onnx(network, 1024).SerializeToString(), {})
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "fastsam" / "1").mkdir(parents=True)
    shutil.copy(CONFIG, tmp_path / "fastsam")
    return tmp_path / "fastsam"


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    builder = Builder()
    monkeypatch.setattr(fastsam_plan, "TensorRT", lambda: builder)
    return builder


def test_builds_what_the_config_describes(builder: Builder, bundle: Path, model: Path) -> None:
    report, built = build_plan(bundle, model, force=False)
    assert built
    assert (model / "1" / "model.plan").read_bytes() == b"plan"
    assert (model / "1" / "model.timing").read_bytes() == b"timings"
    assert (builder.batches, builder.size, builder.timings) == ((1, 1, 8), 1024, b"")
    stored = json.loads((model / "1" / "model.json").read_text())
    network = manifest.verify(bundle)["files"]["network.onnx"]["sha256"]
    assert stored["onnx_sha256"] == report.onnx_sha256 == network
    assert stored["batches"] == [1, 1, 8]
    assert {stored[key] for key in ("tensorrt", "compute_capability", "device")} == {
        "10.9.0",
        "8.0",
        "NVIDIA A100",
    }


def test_hands_over_a_network_of_fp16_with_fp32_borders(
    builder: Builder, bundle: Path, model: Path
) -> None:
    build_plan(bundle, model, force=False)
    graph = builder.network.graph
    half = [weight for weight in graph.initializer if weight.data_type == TensorProto.FLOAT16]
    assert len(half) > 100
    for tensor in (*graph.input, *graph.output):
        assert tensor.type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_plan_that_is_there_is_not_built_again(
    builder: Builder, bundle: Path, model: Path
) -> None:
    first, _ = build_plan(bundle, model, force=False)
    assert build_plan(bundle, model, force=False) == (first, False)
    assert builder.builds == 1
    assert build_plan(bundle, model, force=True) == (first, True)


@pytest.mark.parametrize("change", ["tensorrt", "gpu", "plan", "report"])
def test_a_plan_of_something_else_is_built_anew(
    builder: Builder, bundle: Path, model: Path, change: str
) -> None:
    build_plan(bundle, model, force=False)
    if change == "tensorrt":
        builder.version = "11.0.0"
    elif change == "gpu":
        builder.compute_capability = "9.0"
    elif change == "plan":
        (model / "1" / "model.plan").write_bytes(b"damaged")
    else:
        (model / "1" / "model.json").write_text("{}")
    assert build_plan(bundle, model, force=False)[1]


def test_the_timings_of_a_build_go_into_the_next(
    builder: Builder, bundle: Path, model: Path
) -> None:
    build_plan(bundle, model, force=False)
    build_plan(bundle, model, force=True)
    assert builder.timings == b"timings"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"fault": "TensorRT cannot build the network"}, "cannot build"),
        ({"built_type": "float16"}, "images is .*float16"),
    ],
)
def test_what_tensorrt_refuses_leaves_no_plan(
    builder: Builder, bundle: Path, model: Path, fault: dict[str, Any], said: str
) -> None:
    vars(builder).update(fault)
    with pytest.raises(PlanError, match=said):
        build_plan(bundle, model, force=False)
    assert not (model / "1" / "model.plan").exists()
    assert not (model / "1" / "model.json").exists()


def test_without_tensorrt_or_a_gpu_it_says_so(
    bundle: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    with pytest.raises(PlanError, match="no GPU here"):
        build_plan(bundle, model, force=False)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(PlanError, match="TensorRT is not installed here"):
        build_plan(bundle, model, force=False)


def test_the_production_config_is_that_of_1024() -> None:
    assert check_config(CONFIG, 1024) == 8


@pytest.mark.parametrize("size", [320, 640])
def test_a_network_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(PlanError, match=rf"images is .*1024.*needs TYPE_FP32 \[3, {size}"):
        check_config(CONFIG, size)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('0" data_type: TYPE_FP32', '0" data_type: TYPE_FP16', "output0 is TYPE_FP16"),
        ("21504", "8400", "output0 is .*8400"),
        ('"output1"', '"masks"', "output1 is missing"),
    ],
)
def test_every_tensor_is_compared(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = CONFIG.read_text()
    assert old in text
    (tmp_path / "config.pbtxt").write_text(text.replace(old, new))
    with pytest.raises(PlanError, match=said):
        check_config(tmp_path / "config.pbtxt", 1024)
