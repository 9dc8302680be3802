from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pytest
import structlog

from frontend import logs
from frontend.supervision import MAX_FAILED_ROUNDS, Rounds

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def ending(full: TextIO) -> Iterator[TextIO]:
    try:
        yield full
    finally:
        with contextlib.suppress(OSError):  # what is left in its buffer
            full.close()


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_an_entry_is_one_line_of_json_with_the_task_id(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    with structlog.contextvars.bound_contextvars(task_id="a"):
        structlog.get_logger().info("job\nended", status="done")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"event": "job\nended", "level": "info", "status": "done", "task_id": "a"}


def test_the_level_is_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning")
    structlog.get_logger().info("quiet")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("lasting", ["store_away", "picture_not_kept", "decoding_failed"])
def test_what_many_tasks_find_is_told_now_and_then(
    lasting: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("frontend.logs.time.monotonic", lambda: now)
    logs.configure("info")
    log = structlog.get_logger()
    for _ in range(30):
        log.warning(lasting, reason="it is so")
        log.info("job_ended")
        now += 1.0
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events.count(lasting) == 3
    assert events.count("job_ended") == 30


def test_a_long_traceback_keeps_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    try:
        raise ValueError("x" * 10_000 + " the end")
    except ValueError:
        structlog.get_logger().exception("crashed")
    entry = json.loads(capsys.readouterr().err)
    assert len(entry["exception"]) == logs.MAX_VALUE_CHARS + 1
    assert entry["exception"].endswith("the end")


@pytest.mark.parametrize("closed", [False, True])
def test_a_log_that_cannot_be_written_ends_nothing(
    closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = Rounds("dispatcher")
    with ending(Path("/dev/full").open("w", buffering=1)) as full:
        monkeypatch.setattr("sys.stderr", full)
        logs.configure("info")
        if closed:
            full.close()
        structlog.get_logger().info("job_ended")
        logging.getLogger("library").warning("odd")
        for _ in range(MAX_FAILED_ROUNDS - 1):
            with rounds.one():
                raise ValueError("a bad round")
