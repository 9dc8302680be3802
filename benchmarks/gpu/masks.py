"""Owns measuring smart masks on a GPU without TensorRT: the network by PyTorch, and whole clicks.

The networks of FastSAM's sizes have random weights; the demo's network has its own.
"""

import functools
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu import machine
from benchmarks.gpu.mask_network import MaskNetwork, load
from benchmarks.mask_agreement import EXAMPLES, agreement
from export import demo_masks
from model_kit.laps import Laps
from smart_mask.letterbox import Floats
from smart_mask.progress import Progress
from smart_mask.request import MaskRequest
from smart_mask.segmenter import Segmenter
from smart_mask.settings import MaskSettings

NETWORK = Path(demo_masks.__file__).parent / "weights" / "network.onnx"
DEMO_SIDE = 320
NAMES = ("FastSAM-s", "FastSAM-x")
SIDES = (640, 1024)
BATCHES = (1, 2, 4, 8)
# The networks that are compiled, which takes long.
COMPILED = "FastSAM-s"
PHOTOGRAPH = EXAMPLES / "warm-light.jpg"
# A cup in it, as a fraction of width and height.
PLACE = (0.56, 0.25)
CLICKS = 5


@torch.inference_mode()
def measure() -> dict[str, Any]:
    """Measure networks in half precision, what that changes, and clicks."""
    scale = machine.current.scale
    networks = {
        name: {
            str(side): _times(name, side, scale.of(BATCHES, (1, 2)))
            for side in scale.of(SIDES, (64,))
        }
        for name in scale.of(NAMES, ("demo",))
    }
    demo = MaskNetwork("demo").eval()
    load(demo, NETWORK)
    ways = {"float32": _run(demo, torch.float32), "float16": _run(demo, torch.float16)}
    masks = agreement(ways, "float32", DEMO_SIDE)["float16"]
    clicks = _clicks(ways["float16"])
    fastest = {
        f"{name} at {side}²": each["graph"]["1"]
        for name, sides in networks.items()
        for side, each in sides.items()
    }
    return {
        "networks_ms": networks,
        "float16_masks": masks,
        "clicks_ms": clicks,
        "summary": [
            *(f"{name} {elapsed} ms" for name, elapsed in fastest.items()),
            f"float16: IoU {masks['min']} at least, boxes {masks['box_pixels']} pixels off at most",
            f"first click {clicks['first']} ms, another {clicks['again']} ms (the demo's network)",
        ],
    }


def _times(name: str, side: int, batches: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Time a network: as PyTorch runs it, as a CUDA graph, and compiled for one image."""
    network = machine.random_model(lambda: MaskNetwork(name)).half()
    found: dict[str, dict[str, float]] = {"eager": {}, "graph": {}, "compiled": {}}
    for batch in batches:
        images = torch.rand(batch, 3, side, side, device=machine.current.device).half()
        for way, run in (("eager", network), ("graph", _graph(network, images))):
            elapsed = machine.milliseconds(functools.partial(run, images))
            found[way][str(batch)] = round(elapsed, 3)
    if name == COMPILED:
        images = torch.rand(1, 3, side, side, device=machine.current.device).half()
        compiled = torch.compile(network, mode="reduce-overhead")
        found["compiled"]["1"] = round(
            machine.milliseconds(functools.partial(compiled, images), warm_ups=4), 3
        )
    return found


def _graph(network: Any, images: torch.Tensor) -> Callable[[torch.Tensor], Any]:
    """Capture a network's kernels for these images; the images must stay the same tensor."""
    if not machine.current.scale.full:
        return network  # type: ignore[no-any-return]
    for _ in range(machine.WARM_UPS):
        network(images)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(images)
    return lambda _: graph.replay()


def _run(network: Any, dtype: torch.dtype) -> Callable[[Floats], tuple[Floats, Floats]]:
    """Return the network as the models call it."""
    device = machine.current.device
    placed = MaskNetwork("demo").eval().to(device)
    placed.load_state_dict(network.state_dict())
    placed.to(dtype)

    def run(images: Floats) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            predictions, prototypes = placed(torch.from_numpy(images).to(device, dtype))
        return predictions.cpu().numpy(), prototypes.cpu().numpy()

    return run


def _clicks(run: Callable[[Floats], tuple[Floats, Floats]]) -> dict[str, float]:
    """Time clicks on a photograph of 1024², decoding and encoding included, without HTTP."""
    settings = MaskSettings(
        network="demo",
        image_size=DEMO_SIDE,
        confidence=0.1,
        iou=0.7,
        max_detections=300,
        workers=1,
        max_queue_size=1,
        cache_bytes=2**28,
        cache_ttl_s=3600,
        max_image_pixels=2**26,
        max_request_bytes=2**27,
    )

    def infer(image: Floats) -> tuple[Floats, Floats]:
        predictions, prototypes = run(image)
        return predictions[0], prototypes[0]

    picture = Image.open(PHOTOGRAPH).convert("RGB").resize((1024, 1024))
    laps: dict[str, list[float]] = {"first": [], "again": []}
    for number in range(CLICKS + 1):
        # Another picture each time: its features are not known.
        file = io.BytesIO()
        picture.point([min(255, value + number) for value in range(256)] * 3).save(file, "JPEG")
        segmenter = Segmenter(settings, infer)
        for kind in laps:
            started = time.perf_counter()
            segmenter.segment(_request(file.getvalue()), Progress(Laps(), lambda: None))
            if number:
                laps[kind].append(1e3 * (time.perf_counter() - started))
    return {kind: round(statistics.median(each), 2) for kind, each in laps.items()}


def _request(data: bytes) -> MaskRequest:
    place = np.array([PLACE], np.float32) * 1024
    return MaskRequest(
        image=data,
        image_id="",
        points=place,
        positive=np.ones(1, np.bool_),
        box=None,
        guidance=None,
        border=0,
        blur=False,
    )
