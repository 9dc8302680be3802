"""`artmancer edit` as users meet it: a process with an exit code, output and signals."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.fakes.bad_inputs import claimed_png
from tests.frontend.scripted_server import DROP, TASK, Script, event, picture, serving

from .command import in_terminal, run, started

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from .command import Lost

DONE = [event("queued"), event("processing", 1), event("processing", 2), event("done", 2)]
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


def edit(url: str, *options: object) -> subprocess.CompletedProcess[str]:
    return run("edit", *options, url=url)


def test_an_edit_ends_with_a_picture(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    script = Script(DONE)
    with serving(script) as url:
        done = edit(url, "--image", image, "--mask", image, "--prompt", "x", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert "100%" in done.stdout
    assert done.stdout.startswith(f"task {TASK}\n")
    assert done.stdout.endswith(f"{out}  (edited in 1.2 s)\n")
    with Image.open(out) as result:
        assert result.size == (4, 4)
    encoded = base64.b64encode(picture()).decode()
    assert script.submitted == {
        "task_type": "removal",
        "prompt": "x",
        "input_image": encoded,
        "conditional_images": [encoded],
        "input_quality": "original",
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
        "--quality": "resized",
        "--region": "full",
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
        "input_quality": "resized",
        "region": "full",
    }
    with Image.open(tmp_path / "out.jpg") as result:
        assert result.format == "JPEG"


def test_a_region_reaches_the_server(image: Path, tmp_path: Path) -> None:
    script = Script(DONE)
    words = ("--image", image, "--mask", image, "--region", "1,2,30,40")
    with serving(script) as url:
        done = edit(url, *words, "--out", tmp_path / "out.png")
    assert done.returncode == 0, done.stderr
    assert script.submitted["region"] == [1.0, 2.0, 30.0, 40.0]


@pytest.mark.parametrize(("number", "code"), SIGNALS, ids=str)
def test_a_signal_cancels_the_edit_on_the_server(
    image: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    script = Script([event("queued"), event("processing", 1)], hold=True)
    options = ("--image", image, "--mask", image, "--out", tmp_path / "out.png")
    with serving(script) as url, started("edit", *options, url=url) as process:
        assert script.streaming.wait(60)
        assert not script.cancelled.is_set()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert script.cancel_path == f"/api/generate/async/cancel/{TASK}"
    assert process.returncode == code
    assert errors == "artmancer: interrupted: the edit on the server ended as cancelled\n"
    assert [each.name for each in tmp_path.iterdir()] == ["in.png"]


def test_a_signal_while_the_server_is_away_says_that_the_edit_may_go_on(image: Path) -> None:
    # Held, because a stream that ends again and again is given up after some seconds.
    script = Script([event("queued"), event("processing", 1)], hold=True)
    options = ("--image", image, "--mask", image)
    with contextlib.ExitStack() as server:
        url = server.enter_context(serving(script))
        with started("edit", *options, url=url) as process:
            assert script.streaming.wait(60)
            server.close()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("artmancer: interrupted, but the edit may go on: no frontend answers")
    assert errors.endswith(f"; stop it by `artmancer cancel {TASK}`\n")


def test_a_lost_edit_can_be_fetched_later(image: Path) -> None:
    script = Script([event("queued"), *[DROP] * 20])
    with serving(script) as url:
        ended = run("edit", "--image", image, "--mask", image, url=url)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"artmancer: lost the event stream of task {TASK}: ")
    assert ended.stderr.endswith(
        f"; the edit may go on, and `artmancer result {TASK} --out FILE` fetches it\n"
    )


@pytest.mark.parametrize(
    ("numbers", "code"), [([signal.SIGINT], 130), ([signal.SIGHUP, signal.SIGHUP], 129)], ids=str
)
def test_a_signal_before_the_server_s_answer_cancels_the_edit_too(
    image: Path, numbers: list[signal.Signals], code: int
) -> None:
    """A terminal that goes sends several."""
    script = Script([event("queued")], hold=True, accept=threading.Event())
    options = ("--image", image, "--mask", image)
    with serving(script) as url, started("edit", *options, url=url) as process:
        assert script.submitting.wait(60)
        first, *more = numbers
        process.send_signal(first)
        assert process.stderr
        assert process.stderr.readline() == (
            "artmancer: waiting for the server to take the edit; interrupt again to leave at once\n"
        )
        for number in more:
            process.send_signal(number)
        assert script.accept
        script.accept.set()
        _, errors = process.communicate(timeout=60)
        assert script.cancel_path == f"/api/generate/async/cancel/{TASK}"
    assert process.returncode == code
    assert errors == "artmancer: interrupted: the edit on the server ended as cancelled\n"


def test_a_terminal_that_is_closed_cancels_the_edit(image: Path) -> None:
    script = Script([event("queued"), event("processing", 1)], hold=True)
    options = ("--image", image, "--mask", image)
    with serving(script) as url, in_terminal("edit", *options, url=url) as (process, terminal):
        shown = b""
        while b"step 1/2" not in shown:
            shown += os.read(terminal, 4096)
        os.close(terminal)
        assert process.wait(60) == 129
        assert script.cancel_path == f"/api/generate/async/cancel/{TASK}"


def test_a_terminal_that_is_closed_before_the_server_s_answer_cancels_the_edit_too(
    image: Path,
) -> None:
    script = Script([event("queued")], hold=True, accept=threading.Event())
    options = ("--image", image, "--mask", image)
    with serving(script) as url, in_terminal("edit", *options, url=url) as (process, terminal):
        assert script.submitting.wait(60)
        os.close(terminal)
        assert script.accept
        script.accept.set()
        assert process.wait(60) == 129
        assert script.cancel_path == f"/api/generate/async/cancel/{TASK}"


@pytest.mark.parametrize("lost", ["full", "unread"])
def test_an_edit_does_not_depend_on_who_takes_its_words(
    image: Path, tmp_path: Path, lost: Lost
) -> None:
    for stream in (1, 2):
        out = tmp_path / f"out-{stream}.png"
        options = ("--image", image, "--point", "1,1", "--out", out)
        with serving(Script(DONE, warnings=["this may take long"])) as url:
            done = run("edit", *options, url=url, lost=lost, lost_stream=stream)
        assert done.returncode == 0
        with Image.open(out) as result:
            assert result.size == (4, 4)


def test_a_second_signal_leaves_at_once_and_names_the_edit(image: Path) -> None:
    script = Script([event("queued"), event("processing", 1)], hold=True, ignore_cancel=True)
    options = ("--image", image, "--mask", image)
    with serving(script) as url, started("edit", *options, url=url) as process:
        assert script.streaming.wait(60)
        process.send_signal(signal.SIGTERM)
        assert script.cancelled.wait(60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == (f"artmancer: interrupted again: stop the edit by `artmancer cancel {TASK}`\n")


def test_a_click_finds_the_mask_of_a_removal(image: Path, tmp_path: Path) -> None:
    script = Script(DONE, points_missed=[0])
    options = ("--point", "1,2", "--negative-point", "3,0", "--mask-out", tmp_path / "mask.png")
    with serving(script) as url:
        done = edit(url, "--image", image, *options, "--out", tmp_path / "out.png")
    assert (done.returncode, done.stderr) == (
        0,
        "artmancer: the mask does not hold the point 1,2: one mask is one object\n",
    )
    assert f"{tmp_path / 'mask.png'}  (score 0.88, " in done.stdout
    asked = script.masks[0]
    del asked["request_id"]
    assert asked == {
        "image": base64.b64encode(picture()).decode(),
        "points": [[1, 2], [3, 0]],
        "point_labels": [1, 0],
        "border_adjustment": 20,
    }
    assert script.submitted["task_type"] == "removal"
    (mask,) = script.submitted["conditional_images"]
    assert base64.b64decode(mask) == picture("L", 255) == (tmp_path / "mask.png").read_bytes()


@pytest.mark.parametrize(
    ("width", "options", "border"),
    [(800, (), 32), (4000, (), 50), (800, ("--border", "-4"), -4), (800, ("--border", "0"), 0)],
)
def test_the_border_of_a_mask_grows_with_the_picture(
    tmp_path: Path, width: int, options: tuple[str, ...], border: int
) -> None:
    image = tmp_path / "wide.png"
    Image.new("L", (width, 3)).save(image)
    script = Script(DONE)
    with serving(script) as url:
        out = tmp_path / "out.png"
        done = edit(url, "--image", image, "--box", "0,0,3,3", *options, "--out", out)
    assert done.returncode == 0, done.stderr
    assert script.masks[0]["bbox"] == [0, 0, 3, 3]
    assert script.masks[0]["border_adjustment"] == border


def test_a_signal_cancels_the_search_for_a_mask(image: Path) -> None:
    script = Script(hold=True)
    options = ("--image", image, "--point", "1,1")
    with serving(script) as url, started("edit", *options, url=url) as process:
        assert script.masking.wait(60)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        request_id = script.masks[0]["request_id"]
        assert script.cancel_path == f"/api/smart-mask/cancel/{request_id}"
    assert process.returncode == 143
    assert errors == "artmancer: interrupted: the request was cancelled on the server\n"
    assert not script.submitting.is_set()


def test_the_server_s_doubts_are_shown_before_the_edit_ends(image: Path, tmp_path: Path) -> None:
    warnings = [
        "this edit may take 900 s: lower num_inference_steps or width and height",
        "conditional_images.0: a mask of 40x30 is stretched to the picture of 30x40",
    ]
    with serving(Script(DONE, warnings=warnings)) as url:
        done = edit(url, "--image", image, "--mask", image, "--out", tmp_path / "out.png")
    assert done.returncode == 0
    assert done.stderr == (
        "artmancer: this edit may take 900 s: lower --steps or width and height\n"
        "artmancer: --mask: a mask of 40x30 is stretched to the picture of 30x40\n"
    )


def test_the_server_judges_a_picture_that_claims_too_much(tmp_path: Path) -> None:
    image = tmp_path / "in.png"
    image.write_bytes(claimed_png(30_000, 30_000))
    script = Script(DONE)
    with serving(script) as url:
        options = ("--image", image, "--point", "1,1", "--out", tmp_path / "out.png")
        done = edit(url, *options)
    assert done.returncode == 0, done.stderr
    assert script.masks[0]["border_adjustment"] == 20


@pytest.mark.parametrize(
    ("options", "task"), [((), "removal"), (("--reference", "in.png"), "insertion")]
)
def test_a_reference_means_an_insertion(
    image: Path, tmp_path: Path, options: tuple[str, ...], task: str
) -> None:
    script = Script(DONE)
    options = tuple(str(image) if word == "in.png" else word for word in options)
    with serving(script) as url:
        out = tmp_path / "out.png"
        done = edit(url, "--image", image, "--mask", image, *options, "--out", out)
    assert done.returncode == 0, done.stderr
    assert script.submitted["task_type"] == task


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "say what to remove: --mask FILE, --point X,Y or --box X0,Y0,X1,Y1"),
        (("--task", "insertion"), "say where to insert: --mask FILE, --point X,Y or"),
        (("--mask", "IN", "--point", "1,1"), "give --mask, or --point and --box, not both"),
        (("--task", "white-balance", "--mask", "IN"), "white-balance takes no --mask"),
        (
            ("--task", "removal", "--mask", "IN", "--reference", "IN"),
            "removal takes no --reference",
        ),
        (("--mask", "IN", "--border", "3"), "--border and --mask-out need --point or --box"),
        (("--mask", "IN", "--mask-out", "m.png"), "--border and --mask-out need --point or"),
        (("--mask", "IN", "--reference-mask", "IN"), "--reference-mask needs --reference"),
        (("--mask", "IN", "--quality", "resized"), "--quality resized needs --region full"),
        (
            ("--mask", "IN", "--quality", "resized", "--region", "1,2,3,4"),
            "--quality resized needs --region full",
        ),
        (("--negative-point", "1,1"), "--negative-point needs a --point on the object"),
        (("--mask", "IN", "--region", "1,2"), "--region takes 4 numbers"),
        (("--mask", "IN", "--box", ""), "--box takes 4 numbers"),
        (("--mask", "IN", "--guidance", "nan"), "this cannot be sent: "),
        (("--mask", "IN", "--guidance", "-inf"), "this cannot be sent: "),
        (("--mask", "IN", "--prompt", "caf\udce9"), "this cannot be sent: "),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_told_before_any_request(
    image: Path, options: tuple[str, ...], text: str
) -> None:
    words = [str(image) if word == "IN" else word for word in options]
    done = edit("http://127.0.0.1:9", "--image", image, *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"artmancer: {text}")
    assert len(done.stderr.splitlines()) == 1


def test_the_server_s_word_for_a_field_becomes_the_option(image: Path) -> None:
    detail = b'{"detail": "num_inference_steps: too many; conditional_images.0: no picture"}'
    with serving(Script(refusal=(400, detail))) as url:
        done = edit(url, "--image", image, "--mask", image)
    assert done.stderr == "artmancer: --steps: too many; --mask: no picture\n"
    assert done.returncode == 2
    with serving(Script([event("error", error="400: prompt: too long")])) as url:
        done = edit(url, "--image", image, "--mask", image)
    assert done.stderr == "artmancer: the edit ended as error: 400: --prompt: too long\n"
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        (Script([event("error", error="500: out of memory")]), 1, "error: 500: out of memory"),
        (Script([event("cancelled", error="by another")]), 1, "cancelled: by another"),
        (Script(refusal=(400, b'{"detail": "prompt: no"}')), 2, "--prompt: no"),
        (Script(refusal=(413, b'{"detail": "too large"}')), 2, "too large"),
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


@pytest.mark.parametrize("command", ["edit", "mask"])
@pytest.mark.parametrize(
    ("out", "text"),
    [
        ("absent/out.png", "there is no folder"),
        ("out.xyz", "unknown file extension: '.xyz'"),
        ("out", "unknown file extension: ''"),
        ("folder.png", "it is no file"),
        ("/proc/out.png", "No such file"),
        ("in.png/out.png", "there is no folder"),
        ("x" * 300 + ".png", "File name too long"),
        ("/", "unknown file extension: ''"),
    ],
)
def test_a_result_that_cannot_be_written_is_told_before_any_request(
    image: Path, tmp_path: Path, command: str, out: str, text: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    for option in ("--out", "--mask-out" if command == "edit" else "--overlay"):
        words = ("--image", image, "--point", "1,1", option, tmp_path / out)
        script = Script(DONE)
        with serving(script) as url:
            done = run(command, *words, url=url)
        assert done.returncode == 2
        assert done.stderr.startswith(f"artmancer: cannot write {tmp_path / out}: {text}")
        assert len(done.stderr.splitlines()) == 1
        assert not script.masks
        assert not script.submitting.is_set()


@pytest.mark.parametrize(
    ("command", "written", "read"),
    [
        *(("edit", "--out", each) for each in ("--image", "--mask")),
        *(("edit", "--out", each) for each in ("--reference", "--reference-mask", "--mask-out")),
        ("edit", "--mask-out", "--image"),
        *(("mask", "--out", each) for each in ("--image", "--rough-mask", "--overlay")),
        ("mask", "--overlay", "--image"),
    ],
)
def test_no_file_is_written_over_another_one_of_the_command(
    image: Path, tmp_path: Path, command: str, written: str, read: str
) -> None:
    copies = {}
    for option in {"--image", written, read} | {"--reference"} & {read.removesuffix("-mask")}:
        copies[option] = tmp_path / f"{option}.png"
        copies[option].write_bytes(picture())
    copies[written] = copies[read]
    words = [word for option in copies.items() for word in option]
    place = ("--point", "1,1") if "--mask" not in copies else ()
    done = run(command, *words, *place)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"artmancer: {written} and {read} are the same file: {copies[written]}\n"
    )
    assert copies[read].read_bytes() == picture()


def test_a_result_that_is_lost_on_a_full_disk_can_be_fetched_again(
    image: Path, tmp_path: Path
) -> None:
    words = ("--image", image, "--mask", image, "--out", tmp_path / "out.png")
    with serving(Script(DONE)) as url:
        done = run("edit", *words, url=url, full_disk=True)
    assert f"task {TASK}\n" in done.stdout
    assert done.returncode == 1
    assert done.stderr == (
        f"artmancer: cannot write {tmp_path / 'out.png'}: [Errno 27] File too large; the server "
        f"keeps the result: artmancer result {TASK} --out FILE\n"
    )
    assert [each.name for each in tmp_path.iterdir()] == ["in.png"]


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (500, 1, f"; the server keeps the result: artmancer result {TASK} --out FILE"),
        (404, 2, ""),
    ],
)
def test_a_result_that_is_refused_can_be_fetched_again_unless_it_is_gone(
    image: Path, tmp_path: Path, status: int, code: int, hint: str
) -> None:
    words = ("--image", image, "--mask", image, "--out", tmp_path / "out.png")
    with serving(Script(DONE, refused_fetches=[status])) as url:
        done = edit(url, *words)
    assert (done.returncode, done.stderr) == (code, f"artmancer: <html> <p>Bad{hint}\n")


def test_a_signal_while_the_result_is_waited_for_names_it(image: Path, tmp_path: Path) -> None:
    script = Script(DONE, refused_fetches=[503] * 1000)
    words = ("--image", image, "--mask", image, "--out", tmp_path / "out.png")
    with serving(script) as url, started("edit", *words, url=url) as process:
        assert script.fetching.wait(60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (
        130,
        f"artmancer: interrupted; the server keeps the result: artmancer result {TASK} "
        "--out FILE\n",
    )
