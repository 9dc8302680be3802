"""Owns the calls to TensorRT: building a plan, and asking a plan for its tensors."""

import importlib
from collections.abc import Iterable
from typing import Any

import torch

from export.errors import ExportError
from export.fastsam.onnx_network import INPUT

FLOAT32 = "float32"


class PlanError(ExportError):
    """Why no plan can be built here."""


class TensorRT:
    """The installed TensorRT, and the GPU that it builds for.

    Raises:
        PlanError: TensorRT or a GPU is missing.
    """

    version: str
    """Of TensorRT; the same version must run the plan."""
    device: str
    """Name of the GPU."""
    compute_capability: str
    """Of the GPU, such as "8.0"; the plan runs on no other."""

    def __init__(self) -> None:
        try:
            self._trt = importlib.import_module("tensorrt")
        except ImportError:
            raise PlanError(
                "TensorRT is not installed here; build the plan inside the image that serves it"
            ) from None
        if not torch.cuda.is_available():
            raise PlanError("no GPU here; build the plan on the GPU that serves it")
        self._logger = self._trt.Logger(self._trt.Logger.WARNING)
        self.version = self._trt.__version__
        self.device = torch.cuda.get_device_name()
        major, minor = torch.cuda.get_device_capability()
        self.compute_capability = f"{major}.{minor}"

    def build(
        self, network: bytes, batches: tuple[int, int, int], size: int, timings: bytes
    ) -> tuple[bytes, bytes]:
        """Build a plan with the number types that the network states.

        Args:
            network: an ONNX file.
            batches: the smallest, the usual and the largest batch.
            size: side of the images, in pixels.
            timings: what an earlier build returned, or nothing. Timings of another TensorRT or
                GPU are not used.

        Returns:
            The plan, and the timings that make the next build faster.

        Raises:
            PlanError: TensorRT cannot read or build the network.
        """
        builder = self._trt.Builder(self._logger)
        # FP16 comes from the network's own types: TensorRT 11 has no other way to ask for FP16.
        typed = 1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        definition = builder.create_network(typed)
        parser = self._trt.OnnxParser(definition, self._logger)
        if not parser.parse(network):
            raise PlanError(f"TensorRT cannot read the network: {parser.get_error(0)}")
        config = builder.create_builder_config()
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT, *((batch, 3, size, size) for batch in batches))
        config.add_optimization_profile(profile)
        # TensorRT refuses foreign timings, gives no cache for damaged ones, and takes empty ones.
        cache = config.create_timing_cache(timings)
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)
        plan = builder.build_serialized_network(definition, config)
        if plan is None:
            raise PlanError("TensorRT cannot build the network; its own lines above say why")
        return bytes(plan), bytes(config.get_timing_cache().serialize())

    def tensors(self, plan: bytes, names: Iterable[str]) -> dict[str, tuple[str, list[int]]]:
        """Return type and shape of a plan's tensors by name; -1 stands for the batch.

        Raises:
            PlanError: TensorRT cannot load the plan.
        """
        engine = self.load(plan)
        found = {}
        for name in names:
            kind = engine.get_tensor_dtype(name)
            kind = FLOAT32 if kind == self._trt.float32 else str(kind)
            found[name] = kind, list(engine.get_tensor_shape(name))
        return found

    def load(self, plan: bytes) -> Any:
        """Load a plan onto the GPU, as TensorRT's ICudaEngine.

        Raises:
            PlanError: TensorRT cannot load the plan.
        """
        engine = self._trt.Runtime(self._logger).deserialize_cuda_engine(plan)
        if engine is None:
            raise PlanError("TensorRT cannot load the plan that it has built")
        return engine
