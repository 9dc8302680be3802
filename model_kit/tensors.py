"""Owns reading a request's tensors as lists and writing texts as tensors."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from model_kit.errors import invalid

# Input name -> its elements (bytes, int, float or bool). An input that the client left out is
# absent.
Tensors = Mapping[str, Sequence[Any]]

# Of one text input. The text encoder reads far less.
MAX_TEXT_BYTES = 32_768


class Tensor(Protocol):
    """What is needed of pb_utils.Tensor."""

    def name(self) -> str:
        """Return the name as config.pbtxt spells it."""

    def as_numpy(self) -> npt.NDArray[Any]:
        """Return the values."""


class Request(Protocol):
    """What is needed of pb_utils.InferenceRequest."""

    def inputs(self) -> Sequence[Tensor]:
        """Return the inputs that the client sent."""


class Response(Protocol):
    """What is needed of pb_utils.InferenceResponse."""

    def output_tensors(self) -> Sequence[Tensor]:
        """Return the outputs."""


def read_inputs(request: Request, max_elements: int) -> Tensors:
    """Return a request's inputs as lists.

    Args:
        request: as Triton passes it to `execute`.
        max_elements: of each input.

    Raises:
        CodedError: INVALID_ARGUMENT: an input has more elements. A list of millions would stop
            all other clients.
    """
    arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
    for name, array in arrays.items():
        if array.size > max_elements:
            raise invalid(name, f"{array.size} elements, at most {max_elements}")
    return {name: array.tolist() for name, array in arrays.items()}


def read_text(tensors: Tensors, name: str) -> str:
    """Return the text of an input, or the empty text.

    Raises:
        CodedError: INVALID_ARGUMENT: it is longer than MAX_TEXT_BYTES or not UTF-8.
    """
    data = b"".join(tensors.get(name, ()))
    if len(data) > MAX_TEXT_BYTES:
        raise invalid(name, f"{len(data)} bytes, at most {MAX_TEXT_BYTES}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise invalid(name, "not UTF-8 text") from error


def read_outputs(response: Response) -> dict[str, npt.NDArray[Any]]:
    """Copy a response's outputs: Triton frees their shared memory with the response."""
    return {tensor.name(): tensor.as_numpy().copy() for tensor in response.output_tensors()}


def text_array(text: str | bytes) -> npt.NDArray[np.object_]:
    """Return a text or a file as the values of a BYTES tensor of shape [1]."""
    data = text.encode() if isinstance(text, str) else text
    return np.array([data], dtype=np.object_)
