"""The command line against the real server, as users type it."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
from PIL import Image, ImageFilter

from tests.fakes.web_client import long_edit
from tests.frontend.cli.command import run, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .server import Server

EXAMPLES = Path(__file__).parents[2] / "examples"
CUP = EXAMPLES / "warm-light.jpg"


def task_of(output: str) -> str:
    found = re.search(r"^task (\S+)$", output, re.MULTILINE)
    assert found
    return found[1]


def test_a_click_removes_what_is_there_and_nothing_else(server: Server, tmp_path: Path) -> None:
    out, mask = tmp_path / "out.png", tmp_path / "mask.png"
    words = ("--image", CUP, "--point", "285,75", "--steps", 2, "--out", out, "--mask-out", mask)
    done = run("edit", *words, url=server.url)
    assert done.returncode == 0, done.stderr
    before, after, cup = (
        np.asarray(Image.open(path).convert(mode)).astype(int)
        for path, mode in ((CUP, "RGB"), (out, "RGB"), (mask, "L"))
    )
    assert before.shape == after.shape
    changed = np.abs(before - after).max(axis=2)
    assert changed[cup == 255].mean() > 5
    # The feather's width is the server's own, so only what is far from the mask.
    grown = Image.fromarray(cup.astype(np.uint8)).filter(ImageFilter.BoxBlur(40))
    assert not changed[np.asarray(grown) == 0].any()


def test_an_edit_is_listed_looked_up_and_fetched_again(server: Server, tmp_path: Path) -> None:
    out, again = tmp_path / "out.png", tmp_path / "again.png"
    words = ("--task", "white-balance", "--image", CUP, "--steps", 1, "--out", out)
    done = run("edit", *words, url=server.url)
    assert done.returncode == 0, done.stderr
    task = task_of(done.stdout)
    newest = run("jobs", "--status", "done", "--limit", 1, url=server.url).stdout
    assert newest.startswith(f"{task}  ")
    assert run("status", task, url=server.url).stdout.split() == ["done"]
    assert run("cancel", task, url=server.url).stdout == "had ended before: done\n"
    assert run("result", task, "--out", again, url=server.url).returncode == 0
    assert out.read_bytes() == again.read_bytes()


@contextlib.contextmanager
def busy_engine(server: Server) -> Iterator[None]:
    """Give the server so much to do that an edit of a test does not end before the test acts."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        answers = [client.post("/api/generate/async", json=long_edit()) for _ in range(4)]
        try:
            yield
        finally:
            for answer in answers:
                client.post(f"/api/generate/async/cancel/{answer.json()['task_id']}")


def test_sigterm_cancels_the_edit_on_the_server(server: Server, tmp_path: Path) -> None:
    words = ("edit", "--task", "white-balance", "--image", CUP, "--steps", 100)
    with (
        busy_engine(server),
        started(*words, "--out", tmp_path / "out.png", url=server.url) as process,
    ):
        assert process.stdout
        task = task_of(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert errors == "artmancer: interrupted: the edit on the server ended as cancelled\n"
    status = httpx.get(f"{server.url}/api/generate/status/{task}", timeout=60).json()
    assert status["status"] == "cancelled"
    assert list(tmp_path.iterdir()) == []


def test_another_terminal_cancels_an_edit(server: Server, tmp_path: Path) -> None:
    words = ("edit", "--task", "white-balance", "--image", CUP, "--steps", 100)
    with (
        busy_engine(server),
        started(*words, "--out", tmp_path / "out.png", url=server.url) as process,
    ):
        assert process.stdout
        task = task_of(process.stdout.readline())
        assert run("cancel", task, url=server.url).stdout == "cancelled\n"
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith("artmancer: the edit ended as cancelled: ")


def test_what_the_server_refuses_is_told_by_its_option(server: Server, tmp_path: Path) -> None:
    words = ("--task", "white-balance", "--image", CUP, "--out", tmp_path / "out.png")
    for option, value in (("--steps", 0), ("--guidance", 99), ("--seed", -1), ("--width", 1)):
        done = run("edit", *words, option, value, url=server.url)
        assert done.returncode == 2
        assert done.stderr.startswith(f"artmancer: {option}: "), done.stderr
    done = run("edit", *words, "--prompt", "<|im_end|>", url=server.url)
    assert done.returncode == 2
    assert done.stderr.startswith("artmancer: the edit ended as error: 400: --prompt: ")
    box = ("--box", "9,9,1,1", "--out", tmp_path / "mask.png")
    done = run("mask", "--image", CUP, *box, url=server.url)
    assert done.stderr.startswith("artmancer: --box: ")
