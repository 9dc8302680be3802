"""`artmancer jobs`, `status`, `cancel` and `result` as users meet them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.frontend.scripted_server import TASK, Script, event, serving

from .command import run, started

if TYPE_CHECKING:
    from pathlib import Path

    from .command import Lost

QUEUED = event("queued")
RUNNING = event("processing", 1)
DONE = event("done", 2)
FAILED = event("error", error="500: out of memory")


def listed(shown: dict[str, Any]) -> dict[str, Any]:
    return shown | {"task_type": "removal", "created_at": "2026-11-29T10:00:00Z", "ended_at": None}


def test_jobs_are_one_a_line_and_name_the_next_page() -> None:
    script = Script(pages=[{"tasks": [*map(listed, (QUEUED, RUNNING, FAILED))], "next_before": 7}])
    with serving(script) as url:
        done = run("jobs", "--status", "queued", "--status", "done", "--limit", 3, url=url)
    assert done.returncode == 0
    assert [line.split("removal")[1].split("  ") for line in done.stdout.splitlines()]
    first, second, third = done.stdout.splitlines()
    assert first.startswith(f"{TASK}  2026-11-")
    assert first.endswith("  queued      place 3 in the queue  about 12 s left")
    assert second.endswith("  processing  step 1 of 2  about 12 s left")
    assert third.endswith("  error       500: out of memory")
    assert done.stderr == "artmancer: there are more: artmancer jobs --before 7\n"
    assert script.queries == ["status=queued&status=done&limit=3"]


def test_no_jobs_are_no_lines() -> None:
    script = Script(pages=[{"tasks": [], "next_before": None}])
    with serving(script) as url:
        done = run("jobs", "--before", 5, url=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert script.queries == ["limit=20&before=5"]


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (QUEUED, "queued      place 3 in the queue  about 12 s left\n"),
        (event("processing"), "processing  Preparing  about 12 s left\n"),
        (DONE, "done      \n"),
    ],
)
def test_the_status_of_an_edit(shown: dict[str, Any], text: str) -> None:
    with serving(Script([shown])) as url:
        done = run("status", TASK, url=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, text, "")


def test_a_cancel_says_how_the_edit_ended() -> None:
    script = Script([QUEUED, RUNNING], hold=True)
    with serving(script) as url:
        done = run("cancel", TASK, url=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cancelled\n", "")
    assert script.cancel_path == f"/api/generate/async/cancel/{TASK}"


def test_a_cancel_says_that_the_edit_had_ended() -> None:
    with serving(Script([QUEUED, DONE])) as url:
        done = run("cancel", TASK, url=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "had ended before: done\n", "")


def test_a_result_is_waited_for_and_written(tmp_path: Path) -> None:
    out = tmp_path / "out.webp"
    with serving(Script([QUEUED, RUNNING, DONE])) as url:
        done = run("result", TASK, "--out", out, url=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"{out}  (edited in 1.2 s)\n")
    with Image.open(out) as picture:
        assert (picture.format, picture.size) == ("WEBP", (4, 4))


@pytest.mark.parametrize("lost", ["full", "unread"])
def test_a_result_does_not_depend_on_who_takes_its_words(tmp_path: Path, lost: Lost) -> None:
    out = tmp_path / "out.png"
    with serving(Script([QUEUED, RUNNING, DONE])) as url:
        done = run("result", TASK, "--out", out, url=url, lost=lost)
    assert (done.returncode, done.stderr) == (0, "")
    assert out.exists()


@pytest.mark.parametrize("words", [("jobs",), ("status", TASK), ("cancel", TASK)], ids=str)
@pytest.mark.parametrize(
    ("lost", "errors"), [("full", "artmancer: stdout: No space left on device\n"), ("unread", "")]
)
def test_an_answer_that_nobody_takes_is_a_failure(
    words: tuple[str, ...], lost: Lost, errors: str
) -> None:
    script = Script([QUEUED], hold=True, pages=[{"tasks": [listed(QUEUED)], "next_before": None}])
    with serving(script) as url:
        done = run(*words, url=url, lost=lost)
        assert script.cancelled.is_set() == (words[0] == "cancel")
    assert (done.returncode, done.stderr) == (1, errors)


def test_a_result_of_a_failed_edit(tmp_path: Path) -> None:
    with serving(Script([QUEUED, FAILED])) as url:
        done = run("result", TASK, "--out", tmp_path / "out.png", url=url)
    assert done.returncode == 1
    assert done.stderr == "artmancer: the edit ended as error: 500: out of memory\n"


def test_who_stops_waiting_for_a_result_cancels_nothing(tmp_path: Path) -> None:
    script = Script([QUEUED, RUNNING], hold=True)
    words = ("result", TASK, "--out", tmp_path / "out.png")
    with serving(script) as url, started(*words, url=url) as process:
        assert script.streaming.wait(60)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert not script.cancelled.is_set()
    assert (process.returncode, errors) == (143, "artmancer: interrupted: the edit goes on\n")


@pytest.mark.parametrize("command", ["status", "cancel", "result"])
def test_an_unknown_edit(tmp_path: Path, command: str) -> None:
    with serving(Script([DONE])) as url:
        options = ("--out", tmp_path / "x.png") if command == "result" else ()
        done = run(command, "nobody", *options, url=url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "artmancer: Task nobody not found\n"


@pytest.mark.parametrize("command", ["status", "cancel", "result"])
@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("one\ntwo", "artmancer: Task one%0Atwo not found"),
        (f"{TASK}\r", f"artmancer: Task {TASK}%0D not found"),
        ("x" * 70_000, "artmancer: this cannot be sent: URL too long"),
        ("", "Error: Invalid value for 'TASK': it is empty"),
    ],
    ids=["two lines", "carriage return", "long", "empty"],
)
def test_what_is_no_task_id(tmp_path: Path, command: str, task: str, text: str) -> None:
    with serving(Script([DONE])) as url:
        options = ("--out", tmp_path / "x.png") if command == "result" else ()
        done = run(command, task, *options, url=url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == text
