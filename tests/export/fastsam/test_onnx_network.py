"""The variants of a network keep its borders and come close to it."""

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, numpy_helper

from export.errors import ExportError
from export.fastsam.decoding import FloatArray, box_iou, decode, mask_iou, network_input
from export.fastsam.onnx_network import image_size, with_half_inside, with_stored_half
from export.scenes.masks import draw_scene
from tests.export.fastsam.networks import borders, expected_borders, run

SIZE = 320


def test_stored_half_is_half_as_large_and_computes_alike(
    demo: onnx.ModelProto, exported: onnx.ModelProto, images: FloatArray
) -> None:
    stored = with_stored_half(exported)
    assert stored.ByteSize() < 0.52 * exported.ByteSize()
    assert borders(stored) == borders(demo) == expected_borders(SIZE)
    halved = [
        numpy_helper.to_array(weight).dtype == np.float16
        for weight in demo.graph.initializer
        if len(weight.dims) == 4
    ]
    assert all(halved)
    full, small = run(exported, images), run(stored, images)
    assert np.abs(full[0][:, 4] - small[0][:, 4]).mean() < 2e-3


def test_half_inside_is_fp16_up_to_the_decoding(exported: onnx.ModelProto) -> None:
    half = with_half_inside(exported)
    assert borders(half) == expected_borders(SIZE)
    types = {weight.name: weight.data_type for weight in half.graph.initializer}
    convolutions = [node for node in half.graph.node if node.op_type == "Conv"]
    kinds = [types[node.input[1]] for node in convolutions]
    # The exception averages the box distribution.
    assert kinds.count(TensorProto.FLOAT) == 1
    assert kinds.count(TensorProto.FLOAT16) == len(kinds) - 1
    shapes = onnx.shape_inference.infer_shapes(half, strict_mode=True)
    elements = {
        info.name: info.type.tensor_type.elem_type
        for info in (*shapes.graph.value_info, *shapes.graph.output)
    }
    for node in half.graph.node:
        if node.op_type in {"Softmax", "Reshape", "Sub", "Slice"}:
            assert elements[node.output[0]] == TensorProto.FLOAT
        if node.op_type in {"MaxPool", "ConvTranspose", "Resize", "Split"}:
            assert elements[node.output[0]] == TensorProto.FLOAT16


def test_half_inside_finds_the_same(demo: onnx.ModelProto) -> None:
    half = with_half_inside(demo)
    compared = 0
    for seed in range(8):
        scene = network_input(draw_scene(seed, SIZE).picture)
        full, rounded = run(demo, scene), run(half, scene)
        sure = full[0][0, 4] > 0.25
        difference = np.abs(full[0][0, :4, sure] - rounded[0][0, :4, sure])
        assert difference.max(initial=0) < 0.5
        assert np.abs(full[0][0, 4] - rounded[0][0, 4]).max() < 0.02
        found, other = (decode(out[0][0], out[1][0], SIZE) for out in (full, rounded))
        for box, mask in zip(found.boxes, found.masks, strict=True):
            best = box_iou(box, other.boxes).argmax()
            assert mask_iou(mask, other.masks[best]) > 0.97
            compared += 1
    assert compared > 15


def test_openvino_reads_the_shipped_network_alike(
    demo: onnx.ModelProto, images: FloatArray
) -> None:
    core = openvino.Core()
    network = core.read_model(demo.SerializeToString())
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for ours, theirs in zip(compiled(images).values(), run(demo, images), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-3)


def test_weights_beyond_the_range_of_half_are_refused(exported: onnx.ModelProto) -> None:
    huge = onnx.ModelProto()
    huge.CopyFrom(exported)
    weight = huge.graph.initializer[0]
    values = numpy_helper.to_array(weight) * 0 + 7e4
    weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), weight.name))
    with pytest.raises(ExportError, match="range"):
        with_half_inside(huge)


def test_other_networks_have_no_image_size(exported: onnx.ModelProto) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(exported)
    other.graph.input[0].name = "pixels"
    with pytest.raises(ExportError, match="not those of FastSAM"):
        image_size(other)
    del other.graph.input[:]
    with pytest.raises(ExportError, match="one picture"):
        image_size(other)
