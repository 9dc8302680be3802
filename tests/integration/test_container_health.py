"""The health check of the Triton container against the real models."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import time
import urllib.request
from typing import TYPE_CHECKING

import httpx
import psutil

import triton_health

if TYPE_CHECKING:
    import pytest

    from .server import Server


def test_models_that_answer_are_healthy(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_health, "ANSWER_TIMEOUT_S", 60.0)  # a busy machine is no illness
    assert triton_health.main(["--url", server.triton_http_url]) == 0
    assert capsys.readouterr().err == ""


def test_a_stuck_model_is_not_though_triton_calls_itself_ready(
    fragile_server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_health, "ASKED", ("smart_mask",))  # a busy one may be as slow
    url = fragile_server.triton_http_url
    stub = fragile_server.stub("smart_mask")
    stub.send_signal(signal.SIGSTOP)
    try:
        with urllib.request.urlopen(f"{url}/v2/health/ready") as answer:
            assert answer.status == 200
        assert triton_health.main(["--url", url]) == 1
    finally:
        # Who goes on may be killed all the same, and the server would restart under the next test.
        with contextlib.suppress(psutil.NoSuchProcess):
            stub.kill()
        deadline = time.monotonic() + 60
        with httpx.Client(base_url=fragile_server.url, timeout=30, trust_env=False) as client:
            while client.get("/readyz").status_code == 200 and time.monotonic() < deadline:
                time.sleep(0.05)
    assert capsys.readouterr().err.startswith("smart_mask: ")


def test_a_mask_model_whose_network_fails_is_not_healthy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event = {"INFO": json.dumps({"network_answers": False})}
    answer = f"data: {json.dumps(event)}\n\n".encode()
    monkeypatch.setattr(triton_health.DIRECT, "open", lambda *_, **__: io.BytesIO(answer))
    found = triton_health.ask("http://localhost", "smart_mask")
    assert found == "smart_mask: the mask network does not answer"


def test_a_model_that_triton_does_not_have_is_not_healthy(server: Server) -> None:
    assert "nobody" in str(triton_health.ask(server.triton_http_url, "nobody"))
    # A model that takes no CANCEL answers with an error.
    assert triton_health.ask(server.triton_http_url, "edit_conditions")


def test_nothing_that_listens_is_not_healthy() -> None:
    assert triton_health.main(["--url", "http://127.0.0.1:9"]) == 1
