"""Owns measuring smart masks by REST beside ultralytics' FastSAM in this process."""

import asyncio
import base64
import io
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image

from benchmarks.report import summary
from benchmarks.server import serving
from export.fastsam import bundle as fastsam_bundle
from export.fastsam import checkpoint as fastsam_checkpoint
from export.fastsam import untrained as fastsam_untrained
from export.fastsam.yolo import FastSAM

ROOT = Path(__file__).parents[1]
PHOTOGRAPH = ROOT / "examples" / "warm-light.jpg"
SIDE = 1024
NETWORK_SIZE = 640
DETECTIONS = 40
CLIENTS = (1, 4, 16)
# One of ten requests brings a new picture.
REPEATS = 9
LABELS = {
    "ultralytics": "ultralytics, every click",
    "first": "first click",
    "again": "repeat click, picture sent again",
    "by_id": "repeat click, by image_id",
}


def measure(*, pairs: int, throughput_s: float) -> dict[str, Any]:
    """Time clicks by turns on a server and on ultralytics; both run the same untrained FastSAM-s.

    The untrained network is bent to find about DETECTIONS things in the photograph, so that
    both sides have masks to make. Ultralytics gets the decoded picture, so it does not decode.
    The server gets JSON with a JPEG in base64 and answers with a PNG in base64.

    Args:
        pairs: how many clicks of each kind.
        throughput_s: seconds for each number of clients.

    Returns:
        Seconds of every kind of click, their ratios to ultralytics, the server's stages, the
        throughput by number of clients, and the bytes that the cache holds for one picture.
    """
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "FastSAM-s.pt")
        picture = Image.open(PHOTOGRAPH).convert("RGB").resize((SIDE, SIDE))
        repository = _prepare(Path(folder), checkpoint, np.asarray(picture))
        with serving(None, MODEL_REPOSITORY=str(repository)) as server:
            return asyncio.run(_measure(server.rest, checkpoint, picture, pairs, throughput_s))


async def _measure(
    url: str, checkpoint: Path, picture: Image.Image, pairs: int, throughput_s: float
) -> dict[str, Any]:
    jpeg = _jpeg(picture)
    images = (_jpeg(_numbered(picture, number)) for number in itertools.count())
    ultralytics = Ultralytics(checkpoint, picture)
    point = ultralytics.point()
    seconds: dict[str, list[float]] = {kind: [] for kind in LABELS}
    stages: dict[str, list[dict[str, float]]] = {kind: [] for kind in LABELS}
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        _, answer = await _click(client, next(images), point)
        fraction = _fraction(answer["mask_base64"])
        for _ in range(pairs):
            started = time.perf_counter()
            ultralytics.click(point)
            seconds["ultralytics"].append(time.perf_counter() - started)
            image = next(images)
            image_id = ""
            for kind in ("first", "again", "by_id"):
                taken, answer = await _click(client, image_id or image, point)
                image_id = answer["image_id"] if kind == "again" else ""
                assert answer["cached"] == (kind != "first")
                seconds[kind].append(taken)
                stages[kind].append(answer["timings"])
        cache = await _cache(client)
        throughput = [
            await _throughput(client, clients, images, point, throughput_s) for clients in CLIENTS
        ]
    return {
        "side": SIDE,
        "network_size": NETWORK_SIZE,
        "jpeg_bytes": len(jpeg),
        "pairs": pairs,
        "mask_share": fraction,
        "seconds": {kind: summary(samples) for kind, samples in seconds.items()},
        "to_ultralytics": {
            kind: summary(
                [b / a for a, b in zip(seconds["ultralytics"], seconds[kind], strict=True)]
            )
            for kind in LABELS
            if kind != "ultralytics"
        },
        "stages_ms": {
            kind: _stages(stages[kind], seconds[kind]) for kind in ("first", "again", "by_id")
        },
        "throughput": throughput,
        "cache_bytes_per_image": round(cache["bytes"] / cache["images"]),
    }


class Ultralytics:
    """FastSAM as its users call it: a decoded picture and a click."""

    def __init__(self, checkpoint: Path, picture: Image.Image) -> None:
        self._model = FastSAM(str(checkpoint))
        self._picture = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])

    def click(self, point: list[float]) -> Any:
        """Return ultralytics' Results of one click, computed with all cores."""
        # By itself, ultralytics leaves one core unused: half of a machine with two.
        torch.set_num_threads(os.cpu_count() or 1)
        return self._model(
            self._picture,
            points=[point],
            labels=[1],
            device="cpu",
            imgsz=NETWORK_SIZE,
            verbose=False,
        )[0]

    def point(self) -> list[float]:
        """Find a place in the picture that some mask covers; x and y in pixels."""
        result = self._model(self._picture, device="cpu", imgsz=NETWORK_SIZE, verbose=False)[0]
        mask = result.masks.data[0].numpy() > 0
        rows, columns = np.nonzero(mask)
        middle = len(rows) // 2
        scale = SIDE / mask.shape[0]
        return [float(columns[middle] * scale), float(rows[middle] * scale)]


def draw(axes: Axes, results: dict[str, Any]) -> None:
    """Draw the median time of each kind of click, on a logarithmic scale."""
    kinds = list(reversed(LABELS))
    medians = [1000 * results["seconds"][kind]["median"] for kind in kinds]
    bars = axes.barh([LABELS[kind] for kind in kinds], medians)
    axes.bar_label(bars, [f"{median:.1f} ms" for median in medians], padding=3)
    axes.set(
        title=f"A click on a {results['side']}² photograph, FastSAM-s at {NETWORK_SIZE}²",
        xlabel="milliseconds",
        xscale="log",
        xlim=(1, 4 * max(medians)),
    )


def _prepare(folder: Path, checkpoint: Path, pixels: Any) -> Path:
    """Write a checkpoint and its bundle; return a model repository that serves them."""
    fastsam_untrained.write_untrained(
        checkpoint, "FastSAM-s", NETWORK_SIZE, pixels, detections=DETECTIONS
    )
    network = fastsam_checkpoint.export_onnx(
        fastsam_checkpoint.open_checkpoint(checkpoint), NETWORK_SIZE
    ).SerializeToString()
    shutil.copytree(ROOT / "model_repository", folder / "model_repository")
    shutil.copytree(ROOT / "bundles" / "demo", folder / "bundles" / "demo")
    fastsam_bundle.place(
        folder / "bundles" / "fastsam",
        *("FastSAM-s, untrained", "for benchmarks", NETWORK_SIZE, network),
        parity={},
    )
    return folder / "model_repository"


def _numbered(picture: Image.Image, number: int) -> Image.Image:
    """Return a picture that differs in a corner: a model knows a picture by its pixels."""
    changed = picture.copy()
    changed.paste((number * 3 % 256, number // 64 % 256, 0), (0, 0, 16, 16))
    return changed


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


async def _click(
    client: httpx.AsyncClient, image: bytes | str, point: list[float]
) -> tuple[float, dict[str, Any]]:
    """Click once; return the seconds from raw picture to decoded mask, and the answer."""
    started = time.perf_counter()
    if isinstance(image, str):
        source = {"image_id": image}
    else:
        source = {"image": base64.b64encode(image).decode()}
    response = await client.post("/api/smart-mask", json={**source, "points": [point]})
    answer: dict[str, Any] = response.raise_for_status().json()
    base64.b64decode(answer["mask_base64"])
    return time.perf_counter() - started, answer


async def _throughput(
    client: httpx.AsyncClient,
    clients: int,
    images: Iterator[bytes],
    point: list[float],
    duration_s: float,
) -> dict[str, Any]:
    """Let clients click as fast as they are answered: one new picture, then REPEATS repeats."""
    ends = time.perf_counter() + duration_s
    taken: dict[str, list[float]] = {"new": [], "repeat": []}

    async def click_on() -> None:
        while time.perf_counter() < ends:
            seconds, answer = await _click(client, next(images), point)
            taken["new"].append(seconds)
            for _ in range(REPEATS):
                seconds, _answer = await _click(client, answer["image_id"], point)
                taken["repeat"].append(seconds)

    started = time.perf_counter()
    await asyncio.gather(*(click_on() for _ in range(clients)))
    elapsed = time.perf_counter() - started
    return {
        "clients": clients,
        "requests_per_second": round(sum(map(len, taken.values())) / elapsed, 2),
        "new_median_s": round(statistics.median(taken["new"]), 4),
        "repeat_median_s": round(statistics.median(taken["repeat"]), 4),
    }


def _fraction(mask: str) -> float:
    """Return the fraction of the picture that a mask covers."""
    values = np.asarray(Image.open(io.BytesIO(base64.b64decode(mask))))
    return round(float((values > 127).mean()), 3)


async def _cache(client: httpx.AsyncClient) -> dict[str, int]:
    await asyncio.sleep(2)  # until the frontend has pinged the model again
    health = (await client.get("/api/system/health")).raise_for_status().json()
    cache: dict[str, int] = health["services"]["segmentation"]["cache"]
    return cache


def _stages(timings: list[dict[str, float]], seconds: list[float]) -> dict[str, float]:
    """Return median milliseconds of each stage of the model, and of everything else."""
    outside = [total - sum(stages.values()) for stages, total in zip(timings, seconds, strict=True)]
    medians = {
        stage: statistics.median(stages[stage] for stages in timings) for stage in timings[0]
    }
    medians["HTTP, JSON, base64, gRPC"] = statistics.median(outside)
    return {stage: round(1000 * median, 3) for stage, median in medians.items()}
