"""Ultralytics is used without a trace on the machine that uses it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from export.fastsam.yolo import segmentation_loss, segmentation_network

USE = """
import socket

def refuse(*arguments, **options):
    raise AssertionError(f"reached for the network: {arguments}")

socket.socket.connect = socket.create_connection = refuse
import warnings
warnings.simplefilter("error")
from export.fastsam.yolo import segmentation_network
segmentation_network(0.33, 0.25, 512)
import os
assert os.environ.get("OMP_NUM_THREADS") == {threads!r}, "left to processes started later"
"""


@pytest.mark.parametrize("threads", [None, "3"])
def test_importing_prints_nothing_changes_nothing_and_stays_offline(
    tmp_path: Path, threads: str | None
) -> None:
    ours = ("YOLO", "OMP_NUM_THREADS")
    environment = {
        name: value for name, value in os.environ.items() if not any(each in name for each in ours)
    }
    environment |= {"OMP_NUM_THREADS": threads} if threads else {}
    environment |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}
    for folder in ("home", "temporary"):
        (tmp_path / folder).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", USE.replace("{threads!r}", repr(threads))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("scale", "millions"),
    [((0.33, 0.25, 512), 2.09), ((0.33, 0.5, 1024), 11.79)],
)
def test_scales_have_the_published_sizes(scale: tuple[float, float, int], millions: float) -> None:
    network = segmentation_network(*scale)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.03)
    assert network.names == {0: "object"}


def test_the_loss_has_gradients_for_boxes_masks_and_scores() -> None:
    network = segmentation_network(0.33, 0.25, 512).train()
    targets = {
        "batch_idx": torch.zeros(1),
        "cls": torch.zeros(1, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]]),
        "masks": torch.ones(1, 16, 16, dtype=torch.uint8),
    }
    terms, named = segmentation_loss(network)(network(torch.rand(1, 3, 64, 64)), targets)
    terms.sum().backward()
    assert all(named[f"{name}_loss"] > 0 for name in ("box", "seg", "cls", "dfl"))
    head = network.model[-1]
    for branch in (head.cv2, head.cv3, head.cv4):
        assert any(weight.grad.abs().max() > 0 for weight in branch.parameters())
