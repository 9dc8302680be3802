"""`artmancer edit` as users meet it: a process with an exit code, output and signals."""

from __future__ import annotations

import base64
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.frontend.scripted_server import Script, event, picture, serving

ARTMANCER = Path(sys.prefix) / "bin" / "artmancer"
DONE = [event("queued"), event("processing", 1), event("processing", 2), event("done", 2)]


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
        "region": "auto",
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
        "--region": "1,2,30,40",
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
        "region": [1.0, 2.0, 30.0, 40.0],
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
