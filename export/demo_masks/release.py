"""Owns what training hands over: the shipped network, and a report of how it was made."""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from PIL import Image

from export.demo_masks.training import Trained, TrainingPlan
from export.fastsam.bundle import NETWORK
from export.fastsam.checkpoint import export_onnx
from export.fastsam.onnx_network import INPUT, with_stored_half
from export.fastsam.score import RunNetwork, Score, held_out_scenes, score
from export.fastsam.sheet import Picture, write_sheet
from export.folders import replacing

REPORT = "report.json"
IMAGE_SIZE = 320
HELD_OUT = 300
# A detection must score more: ultralytics' default, and a lower bar.
CONFIDENCES = (0.25, 0.1)
PACKAGES = ("torch", "ultralytics", "onnx", "onnxruntime", "numpy", "opencv-python-headless")
SHEET_SCENES, SHEET_COLUMNS = 10, 5


def release(trained: Trained, plan: TrainingPlan, folder: Path, scenes: int) -> list[Score]:
    """Write `network.onnx` with weights in FP16, and `report.json` with the network's scores.

    ONNX Runtime runs the shipped network to measure the scores.

    Args:
        trained: the network.
        plan: how the network was trained.
        folder: its content is replaced once everything is written.
        scenes: how many scenes are measured; training has seen none of them.

    Returns:
        The score at each of `CONFIDENCES`.
    """
    with replacing(folder) as fresh:
        shipped = with_stored_half(export_onnx(trained.network, IMAGE_SIZE))
        content = shipped.SerializeToString()
        (fresh / NETWORK).write_bytes(content)
        network = onnx_network(shipped)
        held_out = held_out_scenes(scenes, IMAGE_SIZE)
        scores = [score(network, held_out, confidence) for confidence in CONFIDENCES]
        report = {
            "network": _described(trained.network),
            "image_size": IMAGE_SIZE,
            "training": {
                "command": _command(plan),
                **asdict(plan),
                "iterations": trained.iterations,
                "minutes": round(trained.seconds / 60, 1),
            },
            "held_out": [_rounded(each) for each in scores],
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "file": {
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
            },
        }
        (fresh / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return scores


def draw_sheet(folder: Path, path: Path, photographs: Sequence[Path]) -> None:
    """Draw what a shipped network finds on held-out scenes and on photographs.

    Args:
        folder: what `release` wrote.
        path: the PNG to write.
        photographs: picture files, shown after the scenes.
    """
    pictures: list[Picture] = [scene.picture for scene in held_out_scenes(SHEET_SCENES, IMAGE_SIZE)]
    pictures += [np.asarray(Image.open(file).convert("RGB")) for file in photographs]
    network = onnx_network(onnx.load(folder / NETWORK))
    write_sheet(path, network, pictures, IMAGE_SIZE, SHEET_COLUMNS)


def onnx_network(network: onnx.ModelProto) -> RunNetwork:
    """Let ONNX Runtime run a network on the CPU."""
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def run(images: Any) -> tuple[Any, Any]:
        predictions, prototypes = session.run(None, {INPUT: images})
        return predictions, prototypes

    return run


def _described(network: Any) -> str:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return f"yolov8-seg, one class, {parameters / 1e6:.2f} M parameters"


def _command(plan: TrainingPlan) -> str:
    options = asdict(plan).items()
    given = [f"--{name} {value:g}" for name, value in options if value is not None]
    return " ".join(["python -m export fastsam-train", *given])


def _rounded(scored: Score) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(scored).items()}
