"""`make demo` as users meet it: a process, what it prints and the pictures that it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from frontend import demo

if TYPE_CHECKING:
    from pathlib import Path


def size(name: str) -> tuple[int, int]:
    with Image.open(demo.EXAMPLES / name) as image:
        return image.size


@pytest.mark.timeout(400)
def test_the_demo_leaves_a_picture_of_each_task_and_shows_them_all_in_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "frontend.demo", "--out", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        # By the default, an answer that a busy machine delays for seconds is a missing one.
        env=os.environ | {"ARTMANCER_PING_TIMEOUT_S": "10"},
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        *("demo.png", "mask.png", "mask-overlay.png"),
        *(f"{example.task}.png" for example in demo.EDITS),
    }
    for name in ("mask.png", "mask-overlay.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == size(demo.CLICKED)
    with Image.open(tmp_path / "mask.png") as mask:
        found = np.asarray(mask) > 128
    x, y = map(int, demo.CLICKS[-1])
    assert found[y, x]
    assert 0.02 < found.mean() < 0.6
    for example in demo.EDITS:
        with Image.open(tmp_path / f"{example.task}.png") as picture:
            assert picture.size == size(example.image)
    with Image.open(tmp_path / "demo.png") as sheet:
        assert sheet.height > (1 + len(demo.EDITS)) * demo.PANEL
    last = done.stdout.partition("Stopping...")[2]
    for name in ("mask.png", "mask-overlay.png", *(f"{each.task}.png" for each in demo.EDITS)):
        assert name in last
    for phase in ("Python starts", "Triton starts", "denoising", "Triton stop"):
        assert phase in last
    assert "second click" in done.stdout
    assert last.rstrip().endswith(str(tmp_path / "demo.png"))
