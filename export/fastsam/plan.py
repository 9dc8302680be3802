"""The TensorRT plan of the mask network, built by the TensorRT that serves it, on its GPU.

No plan has been built by us yet: no machine of ours has had TensorRT's builder. What stands around
the builder is tested; the calls to it are checked against a double of its Python interface.
"""

import hashlib
import importlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from export import manifest
from export.errors import ExportError
from export.fastsam.onnx_network import INPUT, OUTPUTS, anchors, image_size, with_half_inside

PLAN = Path("1", "model.plan")
PRECISION = "FP16 inside; FP32 at the borders and where boxes are decoded"
# What a click needs is one image; more come when several clients look at new images at once.
USUAL_BATCH = 1
_TENSOR = re.compile(r'name:\s*"(\w+)"\s*data_type:\s*(\w+)\s*dims:\s*\[([\d\s,]*)\]')
_MAX_BATCH = re.compile(r"max_batch_size:\s*(\d+)")


class PlanError(ExportError):
    """Why no plan can be built here."""


@dataclass(frozen=True)
class PlanReport:
    """What a plan was built from and for; it lies beside the plan, as JSON.

    Attributes:
        tensorrt: version that built it and that alone can run it.
        device: name of the GPU.
        compute_capability: of the GPU, such as "8.0"; the plan runs on no other.
        precision: of the computation, in words.
        image_size: side of the images.
        batches: the smallest, the usual and the largest batch.
        onnx_sha256: of the network it was built from.
        plan_sha256: of the plan.
    """

    tensorrt: str
    device: str
    compute_capability: str
    precision: str
    image_size: int
    batches: tuple[int, int, int]
    onnx_sha256: str
    plan_sha256: str


def build_plan(bundle: Path, model: Path, force: bool) -> tuple[PlanReport, bool]:
    """Builds the plan that `config.pbtxt` describes, unless it is there.

    Args:
        bundle: the mask network's bundle.
        model: the model's folder in the repository; gets the plan, its report and the timing
            cache, which makes the next build faster.
        force: builds even if a plan of the same network, TensorRT and GPU is there.

    Returns:
        The report, and whether the plan was built now.

    Raises:
        BundleError: the bundle is missing, incomplete or altered.
        PlanError: TensorRT or a GPU is missing, the network does not fit the model's config, or
            TensorRT cannot build it.
    """
    network_path = bundle / manifest.verify(bundle)["network"]
    network = onnx.load(network_path)
    size = image_size(network)
    largest = check_config(model / "config.pbtxt", size)
    tensorrt = _tensorrt()
    major, minor = torch.cuda.get_device_capability()
    plan_path = model / PLAN
    wanted = {
        "tensorrt": tensorrt.__version__,
        "device": torch.cuda.get_device_name(),
        "compute_capability": f"{major}.{minor}",
        "precision": PRECISION,
        "image_size": size,
        "batches": (1, USUAL_BATCH, largest),
        "onnx_sha256": _sha256(network_path.read_bytes()),
    }
    present = _present(plan_path)
    if not force and present is not None and wanted.items() <= asdict(present).items():
        return present, False
    plan_path.parent.mkdir(parents=True, exist_ok=True)
    half = with_half_inside(network).SerializeToString()
    plan = _build(tensorrt, half, size, largest, plan_path.with_suffix(".timing"))
    _check_borders(tensorrt, plan, size)
    report = PlanReport(**wanted, plan_sha256=_sha256(plan))
    # The report last: without it, or with another plan's, the plan is built anew.
    _write(plan_path, plan)
    _write(_report_path(plan_path), json.dumps(asdict(report), indent=2).encode() + b"\n")
    return report, True


def check_config(config: Path, size: int) -> int:
    """Compares the shapes in a `config.pbtxt` with those of a network.

    Args:
        config: the file.
        size: side of the network's images.

    Returns:
        The largest batch that the config allows.

    Raises:
        PlanError: they differ; the text names the tensor.
    """
    text = config.read_text(encoding="utf-8")
    found = {
        name: (kind, [int(dim) for dim in dims.split(",")])
        for name, kind, dims in _TENSOR.findall(text)
    }
    for name, shape in _shapes(size).items():
        kind, dims = found.get(name, ("missing", []))
        if (kind, dims) != ("TYPE_FP32", shape):
            raise PlanError(
                f"{config}: {name} is {kind} {dims}, but a network for images of {size} pixels"
                f" needs TYPE_FP32 {shape}"
            )
    batch = _MAX_BATCH.search(text)
    return int(batch[1]) if batch else 0


def _shapes(size: int) -> dict[str, list[int]]:
    predictions, prototypes = OUTPUTS
    return {
        INPUT: [3, size, size],
        predictions: [37, anchors(size)],
        prototypes: [32, size // 4, size // 4],
    }


def _tensorrt() -> Any:
    try:
        tensorrt = importlib.import_module("tensorrt")
    except ImportError:
        raise PlanError(
            "TensorRT is not installed here; build the plan inside the image that serves it"
        ) from None
    if not torch.cuda.is_available():
        raise PlanError("no GPU here; build the plan on the GPU that serves it")
    return tensorrt


def _build(trt: Any, network_bytes: bytes, size: int, largest: int, timing: Path) -> bytes:
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # Types as they stand in the network: later TensorRTs have no other way to ask for FP16.
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(network_bytes):
        raise PlanError(f"TensorRT cannot read the network: {parser.get_error(0)}")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    batches = (1, USUAL_BATCH, largest)
    profile.set_shape(INPUT, *((batch, 3, size, size) for batch in batches))
    config.add_optimization_profile(profile)
    known = timing.read_bytes() if timing.exists() else b""
    # Of another TensorRT or GPU, it is not taken, and an empty one is.
    if not config.set_timing_cache(config.create_timing_cache(known), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise PlanError("TensorRT cannot build the network; its own lines above say why")
    _write(timing, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _check_borders(trt: Any, plan: bytes, size: int) -> None:
    """Asks the plan itself for its tensors: Triton compares them with `config.pbtxt` too."""
    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan)
    if engine is None:
        raise PlanError("TensorRT cannot load the plan that it has built")
    for name, shape in _shapes(size).items():
        found = engine.get_tensor_dtype(name), list(engine.get_tensor_shape(name))
        if found != (trt.float32, [-1, *shape]):
            raise PlanError(f"the plan's {name} is {found}, not FP32 {[-1, *shape]}")


def _present(plan: Path) -> PlanReport | None:
    try:
        fields = json.loads(_report_path(plan).read_text(encoding="utf-8"))
        report = PlanReport(**fields | {"batches": tuple(fields["batches"])})
        return report if _sha256(plan.read_bytes()) == report.plan_sha256 else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _report_path(plan: Path) -> Path:
    return plan.with_suffix(".json")


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
