"""A plan that the real TensorRT builds finds what the network finds; `make test-gpu` runs this."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.demo_masks.release import onnx_network
from export.fastsam.bundle import NETWORK, place_demo
from export.fastsam.decoding import FloatArray, box_iou, decode, mask_iou, network_input
from export.fastsam.onnx_network import INPUT, OUTPUTS, anchors, with_half_inside
from export.fastsam.plan import PLAN, build_plan
from export.fastsam.tensorrt_builder import PlanError, TensorRT
from export.scenes.masks import draw_scene

pytestmark = pytest.mark.gpu

SIZE = 320
CONFIG = (
    'max_batch_size: 8 name: "images" data_type: TYPE_FP32 dims: [ 3, 320, 320 ]'
    ' name: "output0" data_type: TYPE_FP32 dims: [ 37, 2100 ]'
    ' name: "output1" data_type: TYPE_FP32 dims: [ 32, 80, 80 ]'
)


@pytest.fixture(scope="module", autouse=True)
def tensorrt() -> None:
    pytest.importorskip("tensorrt", reason="TensorRT is not installed in this environment")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "fastsam"
    place_demo(folder, force=False)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository") / "fastsam"
    folder.mkdir()
    (folder / "config.pbtxt").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def plan(bundle: Path, model: Path) -> bytes:
    report, built = build_plan(bundle, model, force=False)
    assert built
    assert report.batches == (1, 1, 8)
    assert (model / "1" / "model.timing").stat().st_size > 0
    return (model / PLAN).read_bytes()


def run(plan: bytes, images: FloatArray) -> dict[str, FloatArray]:
    """Run a plan on images float32 [n, 3, 320, 320]."""
    context = TensorRT().load(plan).create_execution_context()
    count = len(images)
    tensors = {
        INPUT: torch.from_numpy(images).cuda(),
        OUTPUTS[0]: torch.empty(count, 37, anchors(SIZE), device="cuda"),
        OUTPUTS[1]: torch.empty(count, 32, SIZE // 4, SIZE // 4, device="cuda"),
    }
    assert context.set_input_shape(INPUT, images.shape)
    for name, tensor in tensors.items():
        assert context.set_tensor_address(name, tensor.data_ptr())
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    assert context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    return {name: tensors[name].cpu().numpy() for name in OUTPUTS}


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_plan_finds_what_the_network_finds(bundle: Path, plan: bytes, count: int) -> None:
    network = onnx_network(onnx.load(bundle / NETWORK))
    images = np.concatenate(
        [network_input(draw_scene(seed, SIZE).picture) for seed in range(count)]
    )
    found = run(plan, images)
    compared = 0
    for index in range(count):
        predictions, prototypes = network(images[index : index + 1])
        expected = decode(predictions[0], prototypes[0], SIZE)
        own = decode(found[OUTPUTS[0]][index], found[OUTPUTS[1]][index], SIZE, confidence=0.2)
        for box, mask in zip(expected.boxes, expected.masks, strict=True):
            best = box_iou(box, own.boxes).argmax()
            assert np.abs(box - own.boxes[best]).max() < 1
            assert mask_iou(mask, own.masks[best]) > 0.95
            compared += 1
    assert compared > count


def test_a_plan_that_is_there_is_not_built_again_and_foreign_timings_do_no_harm(
    bundle: Path, model: Path, plan: bytes
) -> None:
    assert not build_plan(bundle, model, force=False)[1]
    (model / "1" / "model.timing").write_bytes(b"timings of another GPU")
    assert build_plan(bundle, model, force=True)[1]
    assert (model / "1" / "model.timing").read_bytes() != b"timings of another GPU"


def test_what_tensorrt_refuses_is_said(bundle: Path) -> None:
    tensorrt = TensorRT()
    with pytest.raises(PlanError, match="cannot read the network"):
        tensorrt.build(b"no network", (1, 1, 8), SIZE, b"")
    half = with_half_inside(onnx.load(bundle / NETWORK)).SerializeToString()
    with pytest.raises(PlanError, match="cannot build the network"):
        tensorrt.build(half, (1, 1, 8), 2 * SIZE, b"")
    with pytest.raises(PlanError, match="cannot load the plan"):
        tensorrt.load(b"no plan")
