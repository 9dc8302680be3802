"""Owns FastSAM's network as ONNX: its borders, and the variants that are stored and served.

Every variant has the same borders: `images` FP32 [n, 3, size, size], RGB in 0..1, in; `output0`
FP32 [n, 37, anchors] (centre x, centre y, width, height in pixels of the input, score, 32
coefficients) and `output1` FP32 [n, 32, size / 4, size / 4] (mask prototypes) out.
"""

import copy
from collections.abc import MutableSequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError

INPUT, OUTPUTS = "images", ("output0", "output1")
STRIDES = (8, 16, 32)


def image_size(network: onnx.ModelProto) -> int:
    """Return the side of a network's images, in pixels.

    Raises:
        ExportError: `with_free_batch` makes no network with such inputs and outputs.
    """
    try:
        (images,) = network.graph.input
        _, channels, height, width = (dim.dim_value for dim in images.type.tensor_type.shape.dim)
        outputs = tuple(output.name for output in network.graph.output)
    except ValueError:
        raise ExportError("the network does not take exactly one picture as its input") from None
    if (images.name, outputs, channels) != (INPUT, OUTPUTS, 3) or height != width:
        raise ExportError("the network's inputs and outputs are not those of FastSAM")
    return int(height)


def anchors(size: int) -> int:
    """Count the detections that a network of that image size proposes: one per cell and stride."""
    return sum((size // stride) ** 2 for stride in STRIDES)


def with_free_batch(traced: onnx.ModelProto) -> onnx.ModelProto:
    """Free the batch of a network that was traced with one image, and tidy its weights."""
    freed = copy.deepcopy(traced)
    graph = freed.graph
    _inline_constants(graph)
    weights = {weight.name: weight for weight in graph.initializer}
    # Only reshapes have kept the batch of 1.
    for name in {node.input[1] for node in graph.node if node.op_type == "Reshape"}:
        _, *rest = numpy_helper.to_array(weights[name]).tolist()
        keeping_batch = np.array([0, *rest], np.int64)  # 0 means: as in the input
        weights[name].CopyFrom(numpy_helper.from_array(keeping_batch, name))
    for tensor in (*graph.input, *graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "n"
    del graph.value_info[:]
    onnx.checker.check_model(freed, full_check=True)
    return freed


def with_stored_half(network: onnx.ModelProto) -> onnx.ModelProto:
    """Store the weights in FP16. The network still computes in FP32; only the file gets smaller."""
    stored = copy.deepcopy(network)
    graph = stored.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and len(weight.dims) > 1:
            full = weight.name
            _to_half(weight)
            weight.name = f"{full}.half"
            casts.append(helper.make_node("Cast", [weight.name], [full], to=TensorProto.FLOAT))
    _replace_nodes(graph, [*casts, *graph.node])
    onnx.checker.check_model(stored, full_check=True)
    return stored


def with_half_inside(network: onnx.ModelProto) -> onnx.ModelProto:
    """Let a network compute in FP16, for runtimes that take the types from the graph.

    Inputs and outputs stay FP32, and so does everything from the head's first reshape on. In
    FP16, box positions above 512 pixels would be rounded to half a pixel.

    Args:
        network: as `with_free_batch` or `with_stored_half` makes it.

    Returns:
        The network, with weights and activations of its convolutions in FP16.

    Raises:
        ExportError: a weight lies outside the range of FP16.
    """
    half = copy.deepcopy(network)
    graph = half.graph
    _inline_constants(graph)
    exact = _decoding(graph)
    fast = [node for node in graph.node if node.name not in exact]
    _halve_weights(graph, fast)
    crossing = {name for node in graph.node if node.name in exact for name in node.input}
    inside = {INPUT: f"{INPUT}.half"} | {name: f"{name}.half" for name in OUTPUTS}
    outside = {name: f"{name}.full" for node in fast for name in node.output}
    nodes = [helper.make_node("Cast", [INPUT], [inside[INPUT]], to=TensorProto.FLOAT16)]
    for node in graph.node:
        if node.name in exact:
            _rename(node.input, outside)
            nodes.append(node)
            continue
        produced = list(node.output)
        _rename(node.input, inside)
        _rename(node.output, inside)
        nodes.append(node)
        for name in produced:
            full = name if name in OUTPUTS else outside[name] if name in crossing else None
            if full is not None:
                computed = inside.get(name, name)
                nodes.append(helper.make_node("Cast", [computed], [full], to=TensorProto.FLOAT))
    _replace_nodes(graph, nodes)
    onnx.checker.check_model(half, full_check=True)
    return half


def _decoding(graph: onnx.GraphProto) -> set[str]:
    """Name the nodes from the head's first reshape on: they turn the head's maps into boxes."""
    names: set[str] = set()
    reached: set[str] = set()
    for node in graph.node:
        if node.op_type == "Reshape" or reached.intersection(node.input):
            names.add(node.name)
            reached.update(node.output)
    return names


def _halve_weights(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    weights = {weight.name: weight for weight in graph.initializer}
    for node in nodes:
        # The scales of a Resize are FP32 by definition.
        names = node.input[:1] if node.op_type == "Resize" else node.input
        for name in names:
            if name in weights and weights[name].data_type == TensorProto.FLOAT:
                _to_half(weights[name])


def _to_half(weight: TensorProto) -> None:
    values = numpy_helper.to_array(weight)
    if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise ExportError(f"{weight.name}: outside the range of FP16")
    weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), weight.name))


def _inline_constants(graph: onnx.GraphProto) -> None:
    """Turn each node that only names, copies or widens a weight into a weight of its own."""
    weights = {weight.name: weight for weight in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant":
            values = numpy_helper.to_array(helper.get_node_attr_value(node, "value"))
        elif node.op_type == "Identity" and node.input[0] in weights:
            values = numpy_helper.to_array(weights[node.input[0]])
        elif node.op_type == "Cast" and node.input[0] in weights:  # by with_stored_half
            values = numpy_helper.to_array(weights[node.input[0]]).astype(np.float32)
        else:
            nodes.append(node)
            continue
        weights[node.output[0]] = numpy_helper.from_array(values, node.output[0])
    used = {name for node in nodes for name in node.input}
    _replace_nodes(graph, nodes)
    del graph.initializer[:]
    graph.initializer.extend(weight for name, weight in weights.items() if name in used)


def _rename(names: MutableSequence[str], mapping: dict[str, str]) -> None:
    for index, name in enumerate(names):
        names[index] = mapping.get(name, name)


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    replaced = copy.deepcopy(nodes)
    del graph.node[:]
    graph.node.extend(replaced)
