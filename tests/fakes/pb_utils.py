"""Owns a fake of Triton's Python backend, whose models answer on the GPU by default.

Triton leaves a GPU model's outputs on the GPU, and there `as_numpy` raises. The fake does so for
every model, so that a call that only works between two models on the host fails here.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt


class MemoryType(Enum):
    """Where a tensor lies."""

    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True)
class PreferredMemory:
    """Where the caller of a model wants its outputs."""

    preferred_memory_type: MemoryType
    preferred_device_id: int = 0


class Tensor:
    """A named array; one that a model made may lie on the GPU."""

    def __init__(
        self, name: str, numpy_array: npt.NDArray[Any], memory: MemoryType = MemoryType.CPU
    ) -> None:
        self._name = name
        self._array = numpy_array
        self._memory = memory

    def name(self) -> str:
        return self._name

    def is_cpu(self) -> bool:
        return self._memory is MemoryType.CPU

    def as_numpy(self) -> npt.NDArray[Any]:
        if not self.is_cpu():
            raise RuntimeError("Tensor is stored in GPU and cannot be converted to NumPy.")
        return self._array


class InferenceResponse:
    """Output tensors, or an error."""

    def __init__(self, output_tensors: Sequence[Tensor], error: Any = None) -> None:
        self._tensors = list(output_tensors)
        self._error = error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> Any:
        return self._error


@dataclass
class FakeTriton:
    """The models that the fake knows, and the calls that it got."""

    outputs: dict[str, dict[str, npt.NDArray[Any]]] = field(default_factory=dict)
    """Model -> output -> what it answers."""
    calls: list[tuple[str, Mapping[str, npt.NDArray[np.generic]]]] = field(default_factory=list)
    """Model and inputs, in order."""

    def module(self) -> ModuleType:
        """Make what stands in for `triton_python_backend_utils`."""
        triton = self

        class InferenceRequest:
            def __init__(
                self,
                *,
                model_name: str,
                requested_output_names: Sequence[str],
                inputs: Sequence[Tensor],
                preferred_memory: PreferredMemory | None = None,
                parameters: Mapping[str, str] | None = None,
            ) -> None:
                self._model = model_name
                self._names = requested_output_names
                self._inputs = inputs
                preferred = preferred_memory or PreferredMemory(MemoryType.GPU)
                self._memory = preferred.preferred_memory_type

            def exec(self) -> InferenceResponse:
                inputs = {tensor.name(): tensor.as_numpy() for tensor in self._inputs}
                triton.calls.append((self._model, inputs))
                known = triton.outputs[self._model]
                return InferenceResponse(
                    # A model may leave an output out.
                    [
                        Tensor(name, known[name], self._memory)
                        for name in self._names
                        if name in known
                    ]
                )

        module = ModuleType("triton_python_backend_utils")
        module.__dict__.update(
            InferenceRequest=InferenceRequest,
            InferenceResponse=InferenceResponse,
            InferenceResponseSender=object,
            Logger=SimpleNamespace(log_info=_ignore, log_warn=_ignore, log_error=_ignore),
            PreferredMemory=PreferredMemory,
            Tensor=Tensor,
            TRITONSERVER_MEMORY_CPU=MemoryType.CPU,
            TRITONSERVER_MEMORY_GPU=MemoryType.GPU,
            TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        )
        return module


def load_model(path: Path, triton: FakeTriton) -> Iterator[ModuleType]:
    """Yield a model.py that was imported with the fake; for a fixture to yield from.

    Args:
        path: of the model.py.
        triton: what it calls.
    """
    name = "triton_python_backend_utils"
    before = sys.modules.get(name)
    sys.modules[name] = triton.module()
    try:
        spec = importlib.util.spec_from_file_location(f"{path.parents[1].name}_model", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


def _ignore(_message: str) -> None:
    pass
