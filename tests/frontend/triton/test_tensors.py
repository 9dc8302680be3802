from __future__ import annotations

from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from frontend.triton.tensors import TensorSpec, add_input, outputs
from tests.fakes.wire import decode


@pytest.mark.parametrize(
    ("spec", "values", "shape"),
    [
        (TensorSpec("T", "BYTES"), ("gỡ",), [1]),
        (TensorSpec("T", "BYTES", (-1,)), (b"a", b""), [2]),
        (TensorSpec("T", "INT32", (-1,)), (1, -(2**31)), [2]),
        (TensorSpec("T", "INT64"), (2**63 - 1,), [1]),
        (TensorSpec("T", "FP32", (4,)), (0.5, 1.0, 2.0, -3.0), [4]),
        (TensorSpec("T", "FP32", (-1, 2)), (0.5, 1.0, 2.0, -3.0), [2, 2]),
        (TensorSpec("T", "FP32", (-1, 2)), (0.5, 1.0), [1, 2]),
        (TensorSpec("T", "BOOL"), (True,), [1]),
    ],
)
def test_values_are_sent_in_their_shape(
    spec: TensorSpec, values: tuple[Any, ...], shape: list[int]
) -> None:
    request = service_pb2.ModelInferRequest()
    add_input(request, spec, values)
    assert list(request.inputs[0].shape) == shape
    assert request.inputs[0].datatype == spec.datatype
    sent = [value.encode() if isinstance(value, str) else value for value in values]
    assert decode(request.inputs, request.raw_input_contents) == {"T": sent}


def test_a_response_is_read_by_name() -> None:
    response = service_pb2.ModelInferResponse()
    for name, datatype, raw in [
        ("A", "BYTES", b"\x02\0\0\0ab\0\0\0\0"),
        ("B", "FP32", b"\0\0\x80\x3f"),
        ("C", "BOOL", b"\1\0"),
    ]:
        response.outputs.add(name=name, datatype=datatype)
        response.raw_output_contents.append(raw)
    assert outputs(response) == {"A": [b"ab", b""], "B": [1.0], "C": [True, False]}


@pytest.mark.parametrize("raw", [b"\x03\0\0\0ab", b"\x01\0"])
def test_bytes_that_are_cut_short_are_noticed(raw: bytes) -> None:
    response = service_pb2.ModelInferResponse()
    response.outputs.add(name="A", datatype="BYTES")
    response.raw_output_contents.append(raw)
    with pytest.raises(Exception, match=r"cut short|unpack_from requires"):
        outputs(response)
