from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pytest
import typer
from PIL import Image

from frontend import demo
from frontend.cli import launching
from frontend.cli.console import BAD_INPUT
from frontend.launcher.errors import LaunchError

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.settings import Settings

# Sends the process a signal while it imports Pillow.
SIGNAL_AT_IMPORT = """
import os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "PIL.Image":
            os.kill(os.getpid(), 2)

sys.meta_path.insert(0, Finder())
"""


def size(name: str) -> tuple[int, int]:
    with Image.open(demo.EXAMPLES / name) as image:
        return image.size


@pytest.mark.parametrize("example", demo.EDITS, ids=lambda example: example.task)
def test_the_sample_masks_fit_their_pictures(example: demo.Example) -> None:
    for picture, mask in [
        (example.image, example.mask),
        (example.reference, example.reference_mask),
    ]:
        if picture is None or mask is None:
            continue
        assert size(picture) == size(mask)
        with Image.open(demo.EXAMPLES / mask) as image:
            values = np.asarray(image)
        assert set(np.unique(values)) == {0, 255}
        assert 0.02 < (values == 255).mean() < 0.6


def test_every_sample_picture_is_described() -> None:
    readme = (demo.EXAMPLES / "README.md").read_text()
    names = {path.name for path in demo.EXAMPLES.iterdir()} - {"README.md"}
    assert {name for name in names if f"`{name}`" in readme} == names


def test_the_sheet_shows_each_picture_in_its_shape() -> None:
    red, blue = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (40, 20), "blue")
    strips = [
        demo.Strip("one", [demo.Panel("input", red)]),
        demo.Strip("two", [demo.Panel("input", red), demo.Panel("result", blue)]),
    ]
    pixels = np.asarray(demo._sheet(strips))
    reds, blues = ((pixels == colour).all(axis=2) for colour in ((255, 0, 0), (0, 0, 255)))
    assert reds.sum() == 2 * demo.PANEL**2
    assert blues.sum() == demo.PANEL**2 // 2
    assert reds[:, : demo.PANEL + 2 * demo.GAP].sum() == reds.sum()
    assert not (pixels[-demo.GAP :] != 255).any()


def test_a_signal_during_the_imports_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SIGNAL_AT_IMPORT)
    done = subprocess.run(
        [sys.executable, "-m", "frontend.demo", "--out", tmp_path / "out"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "artmancer: interrupted\n")


def test_a_folder_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launching, "stop_on_signals", lambda: None)
    (tmp_path / "file").touch()
    with pytest.raises(typer.Exit) as left:
        demo.main(tmp_path / "file")
    assert left.value.exit_code == BAD_INPUT
    assert capsys.readouterr().err == f"artmancer: cannot write to {tmp_path}/file: File exists\n"


def test_it_takes_nothing_of_another_server_s_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Settings] = []

    def running(settings: Settings) -> NoReturn:
        seen.append(settings)
        raise LaunchError("seen")

    for name, value in {
        "TRITON_HTTP_PORT": "8000",
        "TRITON_METRICS_PORT": "8002",
        "LOADING_FILE": "/run/other",
        "MODEL_CONFIG_NAME": "h100",
    }.items():
        monkeypatch.setenv(f"ARTMANCER_{name}", value)
    monkeypatch.setattr(launching, "stop_on_signals", lambda: None)
    monkeypatch.setattr(demo, "running", running)
    with pytest.raises(typer.Exit):
        demo.main(tmp_path)
    changed = seen[0].model_dump(exclude_defaults=True)
    assert changed.keys() == {"port", "triton_grpc_port", "state_folder", "log_level"}
