"""What stands around TensorRT's builder, and the calls to it, checked against a double."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto

from export import manifest
from export.fastsam import plan as fastsam_plan
from export.fastsam.bundle import place
from export.fastsam.checkpoint import export_onnx
from export.fastsam.plan import PlanError, build_plan, check_config

REPOSITORY = Path(__file__).parents[3] / "model_repository"
CONFIG = REPOSITORY / "fastsam" / "config.pbtxt"


class FakeTensorRT(SimpleNamespace):
    """Records what is asked of it; its plan is the network, the profile and the cache, as JSON."""

    def __init__(self) -> None:
        super().__init__(__version__="10.9.0", float32="float32", calls=[])
        self.knows_cache = True
        self.parses = True
        self.builds = True
        self.built_type = "float32"
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    class Logger:
        WARNING = 2

        def __init__(self, severity: int) -> None:
            assert severity == self.WARNING

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        return SimpleNamespace(
            create_network=self._create_network,
            create_builder_config=lambda: self._config,
            create_optimization_profile=lambda: SimpleNamespace(set_shape=self._set_shape),
            build_serialized_network=self._build_serialized_network,
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:  # noqa: N802
        assert network == "network"
        return SimpleNamespace(parse=self._parse, get_error=lambda index: f"error {index}")

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        return SimpleNamespace(deserialize_cuda_engine=self._deserialize)

    def _create_network(self, flags: int) -> str:
        self.calls.append(("create_network", flags))
        return "network"

    def _parse(self, content: bytes) -> bool:
        self.network = onnx.load_from_string(content)
        return self.parses

    def _set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.calls.append(("set_shape", name, shapes))

    @property
    def _config(self) -> Any:
        return SimpleNamespace(
            add_optimization_profile=lambda profile: self.calls.append(("add_profile",)),
            create_timing_cache=lambda known: known,
            set_timing_cache=self._set_timing_cache,
            get_timing_cache=lambda: SimpleNamespace(serialize=lambda: bytearray(b"timings")),
        )

    def _set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.calls.append(("set_timing_cache", cache))
        return self.knows_cache or not cache

    def _build_serialized_network(self, network: str, config: Any) -> bytearray | None:
        self.calls.append(("build",))
        return bytearray(b"plan") if self.builds else None

    def _deserialize(self, plan: bytes) -> Any:
        assert plan == b"plan"
        shapes = {name: (-1, *shape) for name, shape in fastsam_plan._shapes(1024).items()}
        return SimpleNamespace(
            get_tensor_dtype=lambda name: self.built_type, get_tensor_shape=shapes.__getitem__
        )


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
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRT]:
    fake = FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100")
    return fake


def test_builds_what_the_config_describes(trt: FakeTensorRT, bundle: Path, model: Path) -> None:
    report, built = build_plan(bundle, model, force=False)
    assert built
    assert (model / "1" / "model.plan").read_bytes() == b"plan"
    assert (model / "1" / "model.timing").read_bytes() == b"timings"
    sides = (1024, 1024)
    assert trt.calls == [
        ("create_network", 2),
        ("set_shape", "images", ((1, 3, *sides), (1, 3, *sides), (8, 3, *sides))),
        ("add_profile",),
        ("set_timing_cache", b""),
        ("build",),
    ]
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
    trt: FakeTensorRT, bundle: Path, model: Path
) -> None:
    build_plan(bundle, model, force=False)
    graph = trt.network.graph
    half = [weight for weight in graph.initializer if weight.data_type == TensorProto.FLOAT16]
    assert len(half) > 100
    for tensor in (*graph.input, *graph.output):
        assert tensor.type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_plan_that_is_there_is_not_built_again(
    trt: FakeTensorRT, bundle: Path, model: Path
) -> None:
    first, _ = build_plan(bundle, model, force=False)
    trt.calls.clear()
    assert build_plan(bundle, model, force=False) == (first, False)
    assert trt.calls == []
    assert build_plan(bundle, model, force=True) == (first, True)


@pytest.mark.parametrize("change", ["tensorrt", "gpu", "plan", "report"])
def test_a_plan_of_something_else_is_built_anew(
    trt: FakeTensorRT, bundle: Path, model: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    build_plan(bundle, model, force=False)
    if change == "tensorrt":
        trt.__version__ = "11.0.0"
    elif change == "gpu":
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    elif change == "plan":
        (model / "1" / "model.plan").write_bytes(b"damaged")
    else:
        (model / "1" / "model.json").write_text("{}")
    assert build_plan(bundle, model, force=False)[1]


def test_timings_are_used_again_unless_they_are_of_another_gpu(
    trt: FakeTensorRT, bundle: Path, model: Path
) -> None:
    build_plan(bundle, model, force=False)
    for knows, given in ((True, [b"timings"]), (False, [b"timings", b""])):
        trt.calls.clear()
        trt.knows_cache = knows
        build_plan(bundle, model, force=True)
        assert [call[1] for call in trt.calls if call[0] == "set_timing_cache"] == given


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"parses": False}, "cannot read the network: error 0"),
        ({"builds": False}, "cannot build"),
        ({"built_type": "float16"}, "images is .*float16"),
    ],
)
def test_what_tensorrt_refuses_leaves_no_plan(
    trt: FakeTensorRT, bundle: Path, model: Path, fault: dict[str, Any], said: str
) -> None:
    vars(trt).update(fault)
    with pytest.raises(PlanError, match=said):
        build_plan(bundle, model, force=False)
    assert not (model / "1" / "model.plan").exists()
    assert not (model / "1" / "model.json").exists()


def test_without_tensorrt_or_a_gpu_it_says_so(
    trt: FakeTensorRT, bundle: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
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
