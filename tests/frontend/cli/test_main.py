"""`artmancer` as users meet it: a process with an exit code, output and signals."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from PIL import Image

from tests.fakes.local_triton import (
    ECHO_REPOSITORY,
    as_environment,
    echo,
    echo_settings,
    processes,
    regions,
)
from tests.frontend.scripted_server import Script, event, picture, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.settings import Settings

ARTMANCER = Path(sys.prefix) / "bin" / "artmancer"
DONE = [event("queued"), event("processing", 1), event("processing", 2), event("done", 2)]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "in.png"
    path.write_bytes(picture())
    return path


def edit(url: str, *options: object) -> subprocess.CompletedProcess[str]:
    line = [str(ARTMANCER), "edit", "--url", url, *map(str, options)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_an_edit_ends_with_a_picture(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    script = Script(DONE)
    with serving(script) as url:
        done = edit(url, "--image", image, "--mask", image, "--prompt", "x", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert "100%" in done.stdout
    assert f"{out}  (1.2 s)" in done.stdout.replace("\n", "")
    with Image.open(out) as result:
        assert result.size == (4, 4)
    encoded = base64.b64encode(picture()).decode()
    assert script.submitted == {
        "task_type": "removal",
        "prompt": "x",
        "input_image": encoded,
        "conditional_images": [encoded],
        "num_inference_steps": 10,
    }


def test_every_option_reaches_the_server(image: Path, tmp_path: Path) -> None:
    script = Script(DONE)
    options = {
        "--image": image,
        "--task": "insertion",
        "--mask": image,
        "--reference": image,
        "--reference-mask": image,
        "--prompt": "put",
        "--negative-prompt": "blurry",
        "--steps": 7,
        "--guidance": 3.5,
        "--seed": 11,
        "--width": 256,
        "--height": 512,
        "--angle": "top-down",
        "--background": "wood-texture",
        "--quality": "original",
        "--out": tmp_path / "out.jpg",
    }
    with serving(script) as url:
        done = edit(url, *(word for option in options.items() for word in option))
    assert done.returncode == 0, done.stderr
    encoded = base64.b64encode(picture()).decode()
    assert script.submitted == {
        "task_type": "insertion",
        "prompt": "put",
        "negative_prompt": "blurry",
        "input_image": encoded,
        "conditional_images": [encoded],
        "reference_image": encoded,
        "reference_mask_R": encoded,
        "num_inference_steps": 7,
        "true_cfg_scale": 3.5,
        "seed": 11,
        "width": 256,
        "height": 512,
        "angle": "top-down",
        "background_preset": "wood-texture",
        "input_quality": "original",
    }
    with Image.open(tmp_path / "out.jpg") as result:
        assert result.format == "JPEG"


def test_ctrl_c_cancels_the_edit_on_the_server(image: Path) -> None:
    script = Script([event("queued"), event("processing", 1)], hold=True)
    with serving(script) as url:
        process = subprocess.Popen(
            [ARTMANCER, "edit", "--url", url, "--image", image, "--mask", image],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that runs the tests in the background has its children ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert script.streaming.wait(60)
        assert not script.cancelled.is_set()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert script.cancelled.is_set()
    assert process.returncode == 130
    assert errors == "artmancer: interrupted: the edit on the server ended as cancelled\n"


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        (Script([event("error", error="500: out of memory")]), 1, "error: 500: out of memory"),
        (Script([event("cancelled", error="by another")]), 1, "cancelled: by another"),
        (Script(refusal=(400, b'{"detail": "prompt: no"}')), 2, "prompt: no"),
        (Script(refusal=(503, b'{"detail": "full"}')), 1, "full"),
    ],
)
def test_an_edit_that_fails_says_why(script: Script, code: int, text: str, image: Path) -> None:
    with serving(script) as url:
        done = edit(url, "--image", image, "--mask", image)
    assert done.returncode == code
    assert done.stderr.startswith("artmancer: ")
    assert done.stderr.endswith(f"{text}\n")
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = edit("http://127.0.0.1:9", "--image", tmp_path / "absent.png")
    assert done.returncode == 2
    assert "absent.png: No such file" in done.stderr


@pytest.mark.parametrize("out", ["absent/out.png", "out.xyz"])
def test_a_result_that_cannot_be_written(image: Path, tmp_path: Path, out: str) -> None:
    with serving(Script(DONE)) as url:
        done = edit(url, "--image", image, "--mask", image, "--out", tmp_path / out)
    assert done.returncode == 2
    assert f"artmancer: cannot write {tmp_path / out}" in done.stderr


def mask(url: str, *options: object) -> subprocess.CompletedProcess[str]:
    line = [str(ARTMANCER), "mask", "--url", url, *map(str, options)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_a_mask_and_its_overlay_are_written(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.png"
    script = Script()
    with serving(script) as url:
        done = mask(url, "--image", image, "--point", "1,2.5", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    overlay = tmp_path / "found-overlay.png"
    assert f"{out}  {overlay}  (score 0.88, " in done.stdout
    with Image.open(out) as found, Image.open(overlay) as shown:
        assert (found.mode, found.size) == ("L", (4, 4))
        assert (shown.mode, shown.size) == ("RGB", (4, 4))
    assert len(script.submitted.pop("request_id")) == 36
    assert script.submitted == {
        "image": base64.b64encode(picture()).decode(),
        "points": [[1, 2.5]],
        "point_labels": [1],
        "bbox": None,
        "mask": None,
        "auto_detect": False,
        "border_adjustment": 0,
        "use_blur": False,
    }


def test_a_box_that_does_not_count_is_not_drawn(image: Path, tmp_path: Path) -> None:
    """The server takes no notice of a box beside points, not even of a reversed one."""
    out = tmp_path / "found.png"
    with serving(Script()) as url:
        done = mask(url, "--image", image, "--point", "1,2", "--box", "3,3,1,1", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_option_of_a_mask_reaches_the_server(image: Path, tmp_path: Path) -> None:
    script = Script()
    words: list[object] = [
        "--point",
        "1,1",
        "--point",
        "2,2",
        "--negative-point",
        "3,0",
        "--box",
        "0,0,3.5,4",
    ]
    words += ["--guidance", image, "--auto", "--border", "-3", "--blur"]
    outputs = [tmp_path / "mask.png", tmp_path / "seen.jpg"]
    with serving(script) as url:
        done = mask(url, "--image", image, *words, "--out", outputs[0], "--overlay", outputs[1])
    assert done.returncode == 0, done.stderr
    encoded = base64.b64encode(picture()).decode()
    del script.submitted["request_id"]
    assert script.submitted == {
        "image": encoded,
        "points": [[1, 1], [2, 2], [3, 0]],
        "point_labels": [1, 1, 0],
        "bbox": [0, 0, 3.5, 4],
        "mask": encoded,
        "auto_detect": True,
        "border_adjustment": -3,
        "use_blur": True,
    }
    assert all(path.exists() for path in outputs)


def test_ctrl_c_cancels_the_mask_on_the_server(image: Path) -> None:
    script = Script(hold=True)
    with serving(script) as url:
        process = subprocess.Popen(
            [ARTMANCER, "mask", "--url", url, "--image", image, "--auto"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that runs the tests in the background has its children ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert script.masking.wait(60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert script.cancel_path == f"/api/smart-mask/cancel/{script.submitted['request_id']}"
    assert process.returncode == 130
    assert errors == "artmancer: interrupted: the request was cancelled on the server\n"


@pytest.mark.parametrize(
    ("words", "refusal", "code", "text"),
    [
        (["--point", "1"], None, 2, "--point takes 2 numbers with commas between them, not 1"),
        (["--negative-point", "a,b"], None, 2, "--negative-point takes 2 numbers"),
        (["--box", "1,2,3"], None, 2, "--box takes 4 numbers"),
        (["--point", "nan,1"], None, 2, "--point takes 2 numbers"),
        (["--guidance", "absent.png"], None, 2, "cannot read absent.png: No such file"),
        (["--auto", "--out", "absent/out.png"], None, 2, "cannot write absent/out.png"),
        (["--auto"], (400, b'{"detail": "FastSAM did not generate any masks"}'), 2, "FastSAM did"),
        (["--auto"], (503, b'{"detail": "Triton is not available"}'), 1, "Triton is not"),
    ],
    ids=str,
)
def test_a_mask_that_fails_says_why(
    image: Path, words: list[str], refusal: tuple[int, bytes] | None, code: int, text: str
) -> None:
    with serving(Script(refusal=refusal)) as url:
        done = mask(url, "--image", image, *words)
    assert done.returncode == code
    assert done.stderr.startswith(f"artmancer: {text}")
    assert len(done.stderr.splitlines()) == 1


def serve(**variables: str) -> subprocess.CompletedProcess[str]:
    """Run a `serve` that is expected to fail."""
    return subprocess.run(
        [ARTMANCER, "serve"],
        env=dict(os.environ) | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_setting_out_of_range() -> None:
    done = serve(ARTMANCER_PORT="0", ARTMANCER_LOG_LEVEL="loud")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "artmancer: ARTMANCER_PORT: Input should be greater than or equal to 1",
        "artmancer: ARTMANCER_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error'",
    ]


@pytest.mark.parametrize("origins", ["http://localhost:3000", ""])
def test_a_setting_that_is_no_json(origins: str) -> None:
    done = serve(ARTMANCER_CORS_ORIGINS=origins)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "cors_origins" in done.stderr


@pytest.mark.parametrize("field", ["port", "triton_grpc_port"])
def test_a_port_in_use(field: str) -> None:
    settings = echo_settings()
    with socket.create_server(("127.0.0.1", getattr(settings, field))):
        done = serve(**as_environment(settings))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert str(getattr(settings, field)) in done.stderr
    assert f"ARTMANCER_{field.upper()}" in done.stderr


def test_a_model_that_does_not_load(tmp_path: Path) -> None:
    repository = shutil.copytree(ECHO_REPOSITORY, tmp_path / "models")
    (repository / "echo" / "1" / "model.py").write_text("raise RuntimeError('no weights')\n")
    done = serve(**as_environment(echo_settings(model_repository=repository)))
    assert done.returncode == 1
    *tail, last = done.stderr.splitlines()
    assert last == "artmancer: tritonserver ended with exit code 1 while starting"
    assert any("no weights" in line for line in tail)


@contextlib.contextmanager
def served(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [ARTMANCER, "serve"],
        env=as_environment(settings) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "ready" in line:
                    break
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_until_a_signal_and_leaves_nothing(number: signal.Signals) -> None:
    settings = echo_settings()
    with served(settings) as process:
        assert httpx.get(f"http://127.0.0.1:{settings.port}/livez").status_code == 200
        assert echo(settings, "hello") == "hello"
        running = processes(settings)
        process.send_signal(number)
        process.send_signal(number)  # an impatient second one changes nothing
        assert process.wait(60) == 0
    assert not any(each.is_running() for each in running.values())
    assert regions(running["guard"]) == []


def test_serve_killed_leaves_nothing() -> None:
    settings = echo_settings()
    with served(settings) as process:
        running = processes(settings)
        process.kill()
    _, alive = psutil.wait_procs(running.values(), timeout=60)
    assert alive == []
    assert regions(running["guard"]) == []


def test_serve_gives_up_loudly(tmp_path: Path) -> None:
    settings = echo_settings(triton_restart_limit=0)
    with served(settings) as process:
        processes(settings)["tritonserver"].kill()
        assert process.wait(60) == 1
    assert processes(settings) == {}


def test_serve_over_another_triton_launches_none() -> None:
    settings = echo_settings(triton_url="127.0.0.1:9")
    with served(settings) as process:
        assert processes(settings) == {}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
