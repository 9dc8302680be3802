from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from model_kit.errors import CodedError
from model_kit.tensors import MAX_TEXT_BYTES, read_inputs, read_outputs, read_text, text_array

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass
class Tensor:
    """Stands for pb_utils.Tensor."""

    of: str
    values: npt.NDArray[Any]

    def name(self) -> str:
        return self.of

    def as_numpy(self) -> npt.NDArray[Any]:
        return self.values


@dataclass
class Message:
    """Stands for a request and for a response."""

    tensors: list[Tensor]

    def inputs(self) -> list[Tensor]:
        return self.tensors

    def output_tensors(self) -> list[Tensor]:
        return self.tensors


def test_inputs_become_lists_of_plain_values() -> None:
    request = Message(
        [
            Tensor("TEXT", np.array([b"a"], np.object_)),
            Tensor("POINTS", np.array([[1, 2], [3, 4]], np.float32)),
            Tensor("FLAG", np.array([True])),
        ]
    )
    inputs = read_inputs(request, 4)
    assert inputs == {"TEXT": [b"a"], "POINTS": [[1.0, 2.0], [3.0, 4.0]], "FLAG": [True]}
    assert type(inputs["FLAG"][0]) is bool


def test_an_input_of_too_many_elements_is_refused_by_name() -> None:
    request = Message([Tensor("POINTS", np.zeros((3, 2), np.float32))])
    assert read_inputs(request, 6)
    with pytest.raises(CodedError) as caught:
        read_inputs(request, 5)
    assert str(caught.value) == "[INVALID_ARGUMENT] POINTS: 6 elements, at most 5"


def test_a_text_is_read() -> None:
    assert read_text({"PROMPT": ["ä".encode()]}, "PROMPT") == "ä"
    assert read_text({"PROMPT": [b""]}, "PROMPT") == ""
    assert read_text({}, "PROMPT") == ""
    assert len(read_text({"PROMPT": [b"a" * MAX_TEXT_BYTES]}, "PROMPT")) == MAX_TEXT_BYTES


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"a" * (MAX_TEXT_BYTES + 1), "32769 bytes, at most 32768"), (b"\xff", "not UTF-8 text")],
)
def test_a_bad_text_is_refused_by_name(data: bytes, said: str) -> None:
    with pytest.raises(CodedError) as caught:
        read_text({"PROMPT": [data]}, "PROMPT")
    assert str(caught.value) == f"[INVALID_ARGUMENT] PROMPT: {said}"


def test_outputs_outlive_their_response() -> None:
    shared = np.array([1, 2], np.float32)
    outputs = read_outputs(Message([Tensor("output0", shared)]))
    shared[:] = 0
    assert outputs["output0"].tolist() == [1, 2]


@pytest.mark.parametrize("text", ["ä", "ä".encode()])
def test_a_text_becomes_one_element_of_bytes(text: str | bytes) -> None:
    array = text_array(text)
    assert array.shape == (1,)
    assert array.dtype == np.object_
    assert array[0] == "ä".encode()
