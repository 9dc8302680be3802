"""Owns the TensorRT plan of the mask network, built on the GPU that serves it.

No plan has been built by us yet, because no machine of ours has had TensorRT's builder. The tests
cover all that stands around the builder; `make test-gpu` builds a plan and runs it.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from export import manifest
from export.fastsam.onnx_network import INPUT, OUTPUTS, anchors, image_size, with_half_inside
from export.fastsam.tensorrt_builder import FLOAT32, PlanError, TensorRT
from export.folders import replacing_file

PLAN = Path("1", "model.plan")
PRECISION = "FP16 inside; FP32 at the borders and where boxes are decoded"
# A click needs one image. More come when several clients look at new images at once.
USUAL_BATCH = 1
_TENSOR = re.compile(r'name:\s*"(\w+)"\s*data_type:\s*(\w+)\s*dims:\s*\[([\d\s,]*)\]')
_MAX_BATCH = re.compile(r"max_batch_size:\s*(\d+)")


@dataclass(frozen=True)
class PlanReport:
    """What a plan was built from and for. The report lies beside the plan, as JSON."""

    tensorrt: str
    """Version that built the plan; only this version can run the plan."""
    device: str
    """Name of the GPU."""
    compute_capability: str
    """Of the GPU, such as "8.0"; the plan runs on no other."""
    precision: str
    """Of the computation, in words."""
    image_size: int
    """Side of the images, in pixels."""
    batches: tuple[int, int, int]
    """The smallest, the usual and the largest batch."""
    onnx_sha256: str
    """Of the network that the plan was built from."""
    plan_sha256: str
    """Of the plan."""


def build_plan(bundle: Path, model: Path, force: bool) -> tuple[PlanReport, bool]:
    """Build the plan that `config.pbtxt` describes, unless the plan is there.

    Args:
        bundle: the mask network's bundle.
        model: the model's folder in the repository. It gets the plan, the plan's report and the
            timing cache, which makes the next build faster.
        force: builds even if a plan of the same network, TensorRT and GPU is there.

    Returns:
        The report, and whether the plan was built now.

    Raises:
        ManifestError: the bundle is missing, incomplete or altered.
        PlanError: TensorRT or a GPU is missing, the network does not fit the model's config, or
            TensorRT cannot build the network.
    """
    network_path = bundle / manifest.verify(bundle)["network"]
    network = onnx.load(network_path)
    size = image_size(network)
    largest = check_config(model / "config.pbtxt", size)
    tensorrt = TensorRT()
    plan_path = model / PLAN
    batches = 1, USUAL_BATCH, largest
    wanted: dict[str, Any] = {
        "tensorrt": tensorrt.version,
        "device": tensorrt.device,
        "compute_capability": tensorrt.compute_capability,
        "precision": PRECISION,
        "image_size": size,
        "batches": batches,
        "onnx_sha256": manifest.sha256(network_path),
    }
    present = _present(plan_path)
    if not force and present is not None and wanted.items() <= asdict(present).items():
        return present, False
    plan_path.parent.mkdir(parents=True, exist_ok=True)
    timing_path = plan_path.with_suffix(".timing")
    known = timing_path.read_bytes() if timing_path.exists() else b""
    half = with_half_inside(network).SerializeToString()
    plan, timings = tensorrt.build(half, batches, size, known)
    _write(timing_path, timings)
    _check_borders(tensorrt, plan, size)
    report = PlanReport(**wanted, plan_sha256=hashlib.sha256(plan).hexdigest())
    # The report comes last: a plan without its report, or with another's, is built again.
    _write(plan_path, plan)
    _write(_report_path(plan_path), json.dumps(asdict(report), indent=2).encode() + b"\n")
    return report, True


def check_config(config: Path, size: int) -> int:
    """Compare the shapes in a `config.pbtxt` with those of a network.

    Args:
        config: the file.
        size: side of the network's images, in pixels.

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


def _check_borders(tensorrt: TensorRT, plan: bytes, size: int) -> None:
    """Ask the plan itself for its tensors: Triton compares them with `config.pbtxt` too."""
    shapes = _shapes(size)
    for name, found in tensorrt.tensors(plan, shapes).items():
        if found != (FLOAT32, [-1, *shapes[name]]):
            raise PlanError(f"the plan's {name} is {found}, not FP32 {[-1, *shapes[name]]}")


def _present(plan: Path) -> PlanReport | None:
    try:
        fields = json.loads(_report_path(plan).read_text(encoding="utf-8"))
        report = PlanReport(**fields | {"batches": tuple(fields["batches"])})
        return report if manifest.sha256(plan) == report.plan_sha256 else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _report_path(plan: Path) -> Path:
    return plan.with_suffix(".json")


def _write(path: Path, content: bytes) -> None:
    with replacing_file(path) as unfinished:
        unfinished.write_bytes(content)
