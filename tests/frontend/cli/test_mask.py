"""`artmancer mask` as users meet it: a process with an exit code, output and signals."""

from __future__ import annotations

import base64
import signal
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.frontend.scripted_server import Script, picture, serving

from .command import run, started

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from .command import Lost


REFUSED_PICTURE = (
    b'{"detail": "Failed to cache image: Invalid image data or unsupported format: image file is '
    b'truncated"}'
)
REFUSED_MASK = b'{"detail": "mask: Invalid image data or unsupported format: not a PNG"}'


def mask(url: str, *options: object) -> subprocess.CompletedProcess[str]:
    return run("mask", *options, url=url)


def test_a_mask_is_written_and_no_overlay_that_nobody_asked_for(
    image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.png"
    with serving(Script()) as url:
        done = mask(url, "--image", image, "--auto", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{out}  (score 0.88, ")
    assert {each.name for each in tmp_path.iterdir()} == {"in.png", "found.png"}


@pytest.mark.parametrize("lost", ["full", "unread"])
def test_a_mask_does_not_depend_on_who_takes_its_words(
    image: Path, tmp_path: Path, lost: Lost
) -> None:
    out = tmp_path / "found.png"
    with serving(Script(points_missed=[0])) as url:
        words = ("mask", "--image", image, "--point", "1,1", "--out", out)
        done = run(*words, url=url, lost=lost)
    missed = "artmancer: the mask does not hold the point 1,1: one mask is one object\n"
    assert (done.returncode, done.stderr) == (0, missed)
    assert out.exists()


def test_a_mask_and_its_overlay_are_written(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.png"
    script = Script()
    with serving(script) as url:
        overlay = tmp_path / "shown.png"
        options = ("--point", "1,2.5", "--out", out, "--overlay", overlay)
        done = mask(url, "--image", image, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{out}  {overlay}  (score 0.88, " in done.stdout
    with Image.open(out) as found, Image.open(overlay) as shown:
        assert (found.mode, found.size) == ("L", (4, 4))
        assert (shown.mode, shown.size) == ("RGB", (4, 4))
    (asked,) = script.masks
    assert len(asked.pop("request_id")) == 36
    assert asked == {
        "image": base64.b64encode(picture()).decode(),
        "points": [[1, 2.5]],
        "point_labels": [1],
    }


def test_points_that_the_mask_does_not_hold_are_named(image: Path, tmp_path: Path) -> None:
    options = ("--point", "1,1", "--negative-point", "3,0", "--point", "2.5,3.1234567")
    with serving(Script(points_missed=[1])) as url:
        done = mask(url, "--image", image, *options, "--out", tmp_path / "found.png")
    assert (done.returncode, done.stderr) == (
        0,
        "artmancer: the mask does not hold the point 2.5,3.123: one mask is one object\n",
    )


def test_the_server_s_doubts_are_shown(image: Path, tmp_path: Path) -> None:
    warning = "mask: a mask of 40x30 is stretched to the picture of 30x40"
    with serving(Script(mask_warnings=[warning])) as url:
        options = ("--rough-mask", image, "--out", tmp_path / "found.png")
        done = mask(url, "--image", image, *options)
    assert (done.returncode, done.stderr) == (0, f"artmancer: --rough-{warning}\n")


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
    words += ["--rough-mask", image, "--auto", "--border", "-3", "--blur"]
    outputs = [tmp_path / "mask.png", tmp_path / "seen.jpg"]
    with serving(script) as url:
        done = mask(url, "--image", image, *words, "--out", outputs[0], "--overlay", outputs[1])
    assert done.returncode == 0, done.stderr
    encoded = base64.b64encode(picture()).decode()
    (asked,) = script.masks
    del asked["request_id"]
    assert asked == {
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_the_mask_on_the_server(
    image: Path, number: signal.Signals, code: int
) -> None:
    script = Script(hold=True)
    with serving(script) as url, started("mask", "--image", image, "--auto", url=url) as process:
        assert script.masking.wait(60)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        request_id = script.masks[0]["request_id"]
        assert script.cancel_path == f"/api/smart-mask/cancel/{request_id}"
    assert process.returncode == code
    assert errors == "artmancer: interrupted: the request was cancelled on the server\n"


@pytest.mark.parametrize(
    ("words", "refusal", "code", "text"),
    [
        (["--point", "1"], None, 2, "--point takes 2 numbers with commas between them, not 1"),
        ([], None, 2, "say which object: --point X,Y, --box X0,Y0,X1,Y1, --rough-mask FILE or"),
        (["--negative-point", "1,2"], None, 2, "--negative-point needs a --point"),
        (["--point", "1,1", "--negative-point", "a,b"], None, 2, "--negative-point takes 2"),
        (["--box", "1,2,3"], None, 2, "--box takes 4 numbers"),
        (["--point", "nan,1"], None, 2, "--point takes 2 numbers"),
        (["--auto"], (400, REFUSED_PICTURE), 2, "--image: image file is truncated"),
        (["--auto"], (400, REFUSED_MASK), 2, "--rough-mask: not a PNG"),
        (["--rough-mask", "absent.png"], None, 2, "cannot read absent.png: No such file"),
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


@pytest.mark.parametrize(
    ("data", "box", "text"),
    [(b"no picture", "0,0,1,1", "not a PNG, "), (picture(), "3,3,1,1", "x1 must be greater ")],
    ids=["no picture", "a box inside out"],
)
def test_an_overlay_that_cannot_be_drawn(
    image: Path, tmp_path: Path, data: bytes, box: str, text: str
) -> None:
    image.write_bytes(data)
    out, overlay = tmp_path / "mask.png", tmp_path / "seen.png"
    with serving(Script()) as url:
        words = ("--box", box, "--out", out, "--overlay", overlay)
        done = mask(url, "--image", image, *words)
    assert done.returncode == 1
    assert done.stderr.startswith(f"artmancer: cannot draw {overlay}: ")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert out.exists()
    assert not overlay.exists()
