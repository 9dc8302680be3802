from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pytest
import typer
from PIL import Image

from frontend import demo
from frontend.cli.console import BAD_INPUT, FAILED
from frontend.launcher.errors import LaunchError
from frontend.serving import Serving
from tests.frontend.scripted_server import Script, event, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    monkeypatch.setattr(demo, "stop_on_signals", lambda: None)
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
    monkeypatch.setattr(demo, "stop_on_signals", lambda: None)
    monkeypatch.setattr(demo, "running", running)
    with pytest.raises(typer.Exit):
        demo.main(tmp_path)
    changed = seen[0].model_dump(exclude_defaults=True)
    assert changed.keys() == {"port", "triton_grpc_port", "state_folder", "log_level"}


def test_a_triton_that_is_given_up_ends_it_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Script([event("queued")], hold=True)
    triton = SimpleNamespace(failure=None)

    def give_up() -> None:
        assert script.streaming.wait(60)
        triton.failure = LaunchError("gave up after 3 restarts", log_tail="the log")

    @contextlib.contextmanager
    def running(_settings: Settings) -> Iterator[Serving]:
        with serving(script) as url:
            yield Serving(url, triton, threading.current_thread())  # type: ignore[arg-type]

    monkeypatch.setattr(demo, "stop_on_signals", lambda: None)
    monkeypatch.setattr(demo, "running", running)
    monkeypatch.setattr(demo, "_mask", lambda *_: None)
    supervisor = threading.Thread(target=give_up)
    supervisor.start()
    with pytest.raises(typer.Exit) as left:
        demo.main(tmp_path)
    supervisor.join()
    assert left.value.exit_code == FAILED
    assert capsys.readouterr().err == "the log\nartmancer: gave up after 3 restarts\n"


@pytest.mark.parametrize("triton_failed", [True, False])
def test_a_mask_that_fails_is_told_by_its_reason(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    triton_failed: bool,
) -> None:
    triton = SimpleNamespace(failure=LaunchError("gave up") if triton_failed else None)

    @contextlib.contextmanager
    def running(_settings: Settings) -> Iterator[Serving]:
        yield Serving("http://127.0.0.1:9", triton, threading.current_thread())  # type: ignore[arg-type]

    monkeypatch.setattr(demo, "stop_on_signals", lambda: None)
    monkeypatch.setattr(demo, "running", running)
    with pytest.raises(typer.Exit) as left:
        demo.main(tmp_path)
    assert left.value.exit_code == FAILED
    text = "gave up" if triton_failed else "no frontend answers at "
    assert capsys.readouterr().err.startswith(f"artmancer: {text}")


def test_it_does_not_depend_on_who_takes_its_words(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "frontend.demo", "--out", tmp_path / "out"],
            env=os.environ | {"ARTMANCER_MODEL_REPOSITORY": str(tmp_path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    # It said in vain that Triton starts, and went on.
    assert done.returncode == 1
    assert done.stderr.startswith("artmancer: ")
    assert "No space left" not in done.stderr
