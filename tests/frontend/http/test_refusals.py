from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from frontend.http import refusals
from frontend.http.app import create_app
from tests.fakes.bad_masks import mask_request
from tests.fakes.web_client import WebClient, edit
from tests.frontend.conftest import listening
from tests.frontend.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.settings import Settings
    from tests.fakes.triton_server import FakeTriton
    from tests.frontend.conftest import Serve

Entry = dict[str, Any]


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[refusals.Window]:
    """Every window that an app gets; each ends only by `_end`, however long a flood takes."""
    made: list[refusals.Window] = []

    class Held(refusals.Window):
        def __init__(self, _: float, report: Callable[[int], None]) -> None:
            super().__init__(3600.0, report)
            made.append(self)

    monkeypatch.setattr(refusals, "Window", Held)
    return made


async def test_a_window_ends_by_itself_and_counts_what_was_left_out() -> None:
    left_out: list[int] = []
    window = refusals.Window(0.01, left_out.append)
    for _ in range(2):
        found = [window.has_room() for _ in range(refusals.MAX_LINES + 2)]
        assert found == [True] * refusals.MAX_LINES + [False] * 2
        await eventually(lambda: left_out)
        assert left_out.pop() == 2


def end(windows: list[refusals.Window]) -> None:
    assert windows
    for window in windows:
        window._end()


def of(entries: list[Any], event: str) -> list[Entry]:
    return [entry for entry in entries if entry["event"] == event]


@pytest.mark.parametrize(
    ("failure", "status", "level"),
    [
        (None, "done", "info"),
        ("[INVALID_ARGUMENT] PROMPT: too long", "error", "info"),
        ("[INTERNAL] it broke", "error", "error"),
    ],
)
async def test_a_job_s_end_is_logged_with_its_facts(
    serve: Serve, triton: FakeTriton, failure: str | None, status: str, level: str
) -> None:
    if failure:
        triton.behaviour.fail_at, triton.behaviour.failure = 1, failure
    async with serve(log_level="info") as client:
        with capture_logs() as entries:
            task_id = await client.submit(edit(num_inference_steps=2))
            await client.follow(task_id)
            await eventually(lambda: of(entries, "job_ended"))
    (ended,) = of(entries, "job_ended")
    assert (ended["task_id"], ended["status"], ended["log_level"]) == (task_id, status, level)
    assert (ended["task_type"], ended["steps"]) == ("removal", 2)
    assert ended["size"] == (8, 8)  # as the stand-in says
    assert ended["queued_seconds"] >= 0
    assert ended["run_seconds"] > 0


async def test_a_cancelled_job_that_waited_has_not_run(serve: Serve, triton: FakeTriton) -> None:
    triton.hold()
    async with serve(log_level="info", max_in_flight=1) as client:
        running = await client.submit()
        waiting = await client.submit()
        with capture_logs() as entries:
            await client.cancel(waiting)
            await client.wait_status(waiting, "cancelled")
            await eventually(lambda: of(entries, "job_ended"))
        await client.cancel(running)
    (ended,) = of(entries, "job_ended")
    assert (ended["task_id"], ended["log_level"]) == (waiting, "info")
    assert ended["queued_seconds"] > 0
    assert ended["run_seconds"] == 0


async def test_refusals_are_logged_without_what_the_client_sent(serve: Serve) -> None:
    secret = "secret" * 1000
    async with serve(log_level="info") as client:
        with capture_logs() as entries:
            await client.http.post("/api/generate", json=edit(prompt=secret))
            await client.http.post("/api/generate", json=edit(input_image=secret))
            await client.http.get("/api/generate/status/nobody")
            await client.http.get(f"/nowhere/{secret}")
            await client.http.post("/api/generate/multi-steps")
    refused = of(entries, "request_refused")
    assert [(entry["method"], entry["route"], entry["status"]) for entry in refused] == [
        ("POST", "/api/generate", 400),
        ("POST", "/api/generate", 400),
        ("GET", "/api/generate/status/{task_id}", 404),
        ("GET", "…", 404),
        ("POST", "/api/generate/multi-steps", 501),
    ]
    assert {entry["log_level"] for entry in refused} == {"info"}
    assert refused[0]["detail"].startswith("prompt: ")
    assert refused[2]["detail"] == "Task nobody not found"
    assert "secretsecret" not in str(entries)


async def test_what_a_model_does_wrong_is_logged_as_a_failure(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.masks.behaviour.garbled = True
    async with serve(log_level="info") as client:
        with capture_logs() as entries:
            await client.http.post("/api/smart-mask", json=mask_request())
    (failed,) = of(entries, "request_failed")
    assert (failed["status"], failed["log_level"]) == (500, "error")


async def test_asking_for_a_failed_job_s_result_is_no_new_failure(
    serve: Serve, triton: FakeTriton
) -> None:
    triton.behaviour.fail_at, triton.behaviour.failure = 1, "[INTERNAL] it broke"
    async with serve(log_level="info") as client:
        task_id = await client.submit()
        await client.follow(task_id)
        with capture_logs() as entries:
            await client.http.get(f"/api/generate/result/{task_id}")
    (entry,) = of(entries, "request_refused")
    assert (entry["status"], entry["log_level"]) == (500, "info")


async def test_a_flood_of_crashes_does_not_flood_the_log(
    settings: Settings, windows: list[refusals.Window]
) -> None:
    flood = 5 * refusals.MAX_LINES
    app = create_app(settings)

    @app.get("/crash/{number}")
    async def crash(number: int) -> None:
        raise RuntimeError(f"it broke {number}")

    async with listening(app) as url, WebClient(url) as client:
        with capture_logs() as entries:
            await asyncio.gather(*(client.http.get(f"/crash/{number}") for number in range(flood)))
            end(windows)
    crashed = of(entries, "request_crashed")
    assert len(crashed) == refusals.MAX_LINES
    assert {entry["log_level"] for entry in crashed} == {"error"}
    (left_out,) = of(entries, "requests_left_out")
    assert (left_out["count"], left_out["log_level"]) == (flood - refusals.MAX_LINES, "error")


async def test_a_flood_of_refusals_does_not_flood_the_log(
    serve: Serve, triton: FakeTriton, windows: list[refusals.Window]
) -> None:
    flood = 5 * refusals.MAX_LINES
    triton.masks.behaviour.garbled = True
    async with serve(log_level="info") as client:
        with capture_logs() as entries:
            await asyncio.gather(*(client.http.get(f"/{number}") for number in range(flood)))
            # What the server does wrong is not hidden by what clients do wrong.
            await client.http.post("/api/smart-mask", json=mask_request())
            end(windows)
            await client.http.get("/one-more")
    assert len(of(entries, "request_failed")) == 1
    assert len(of(entries, "request_refused")) == refusals.MAX_LINES + 1
    (left_out,) = of(entries, "requests_left_out")
    assert left_out["count"] == flood - refusals.MAX_LINES
    assert left_out["log_level"] == "info"
