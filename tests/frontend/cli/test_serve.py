"""`artmancer serve` as users meet it: a process with an exit code, output and signals."""

from __future__ import annotations

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
import pytest

from frontend.keys import make
from tests.fakes.local_triton import (
    ECHO_REPOSITORY,
    as_environment,
    echo,
    echo_settings,
    processes,
    regions,
)
from tests.fakes.processes import alive, ended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.settings import Settings

ARTMANCER = Path(sys.prefix) / "bin" / "artmancer"


def serve(**variables: str) -> subprocess.CompletedProcess[str]:
    """Run a `serve` that is expected to fail."""
    return subprocess.run(
        [ARTMANCER, "serve"],
        env=dict(os.environ) | variables,
        capture_output=True,
        text=True,
        timeout=180,  # the first tritonserver of a machine is read from its disk
        check=False,
    )


def test_a_setting_out_of_range() -> None:
    done = serve(ARTMANCER_PORT="0", ARTMANCER_LOG_LEVEL="loud")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "artmancer: ARTMANCER_PORT: Input should be greater than or equal to 1",
        "artmancer: ARTMANCER_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error'",
    ]


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"ARTMANCER_HOST": "0.0.0.0"}, "ARTMANCER_HOST=0.0.0.0 lets others"),
        ({"ARTMANCER_HOST": "::"}, "ARTMANCER_HOST=:: lets others"),
        (
            {"ARTMANCER_HOST": "0.0.0.0", "ARTMANCER_PUBLISHED_AT": "127.0.0.1,192.0.2.1"},
            "ARTMANCER_PUBLISHED_AT=127.0.0.1,192.0.2.1 lets others",
        ),
        (
            {"ARTMANCER_HOST": "0.0.0.0", "ARTMANCER_KEYS_FILE": "/no/keys.toml"},
            "ARTMANCER_KEYS_FILE: cannot read /no/keys.toml: No such file or directory",
        ),
    ],
)
def test_nobody_serves_the_world_by_mistake(variables: dict[str, str], named: str) -> None:
    done = serve(**as_environment(echo_settings()) | variables)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"artmancer: {named}")
    if "KEYS_FILE" not in named:
        assert "`artmancer key new NAME`" in done.stderr
        assert "ARTMANCER_ALLOW_ANONYMOUS=true" in done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {"ARTMANCER_ALLOW_ANONYMOUS": "true"},
        {"ARTMANCER_PUBLISHED_AT": "127.0.0.1,127.0.0.1"},
        {"ARTMANCER_KEYS_FILE": "keys"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_a_server_for_others_says_who_may_come_in(
    variables: dict[str, str], tmp_path: Path
) -> None:
    if "ARTMANCER_KEYS_FILE" in variables:
        (tmp_path / "keys").write_text(make("ann")[1])
        variables = {"ARTMANCER_KEYS_FILE": str(tmp_path / "keys")}
    settings = echo_settings()
    with socket.create_server(("0.0.0.0", settings.port)):
        done = serve(**as_environment(settings) | {"ARTMANCER_HOST": "0.0.0.0"} | variables)
    # It got as far as the port, which is taken.
    assert "cannot listen on 0.0.0.0" in done.stderr


def test_a_misspelt_setting_is_named_and_does_no_harm() -> None:
    settings = echo_settings()
    with socket.create_server(("127.0.0.1", settings.port)):
        done = serve(**as_environment(settings), ARTMANCER_MAX_QUEUE="9", ARTMANCER_URL="x")
    warning, in_use = done.stderr.splitlines()
    assert warning == (
        "artmancer: warning: ARTMANCER_MAX_QUEUE is no setting and has no effect; "
        "ARTMANCER_MAX_QUEUE_SIZE is one"
    )
    assert str(settings.port) in in_use


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
        url = f"http://127.0.0.1:{settings.port}/livez"
        assert httpx.get(url, timeout=60).status_code == 200
        assert echo(settings, "hello") == "hello"
        running = processes(settings)
        process.send_signal(number)
        process.send_signal(number)  # an impatient second one changes nothing
        assert process.wait(60) == 0
    assert alive(running.values()) == []
    assert regions(running["guard"]) == []


def test_serve_killed_leaves_nothing() -> None:
    settings = echo_settings()
    with served(settings) as process:
        running = processes(settings)
        process.kill()
    ended(running.values())
    assert regions(running["guard"]) == []


def test_serve_gives_up_loudly(tmp_path: Path) -> None:
    settings = echo_settings(triton_restart_limit=0)
    with served(settings) as process:
        processes(settings)["tritonserver"].kill()
        assert process.wait(60) == 1
    assert processes(settings) == {}


@pytest.mark.parametrize(
    ("changes", "where"),
    [({"triton_url": "127.0.0.1:9"}, ["127.0.0.1:9"]), ({"roles": "serve"}, [])],
    ids=["another", "announced"],
)
def test_serve_over_another_triton_launches_none(
    changes: dict[str, str], where: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nothing")  # it needs no folder for Triton's
    settings = echo_settings(**changes)
    with served(settings) as process:
        assert processes(settings) == {}
        assert process.stdout is not None
        for url in where:
            assert process.stdout.readline() == f"Triton listens for gRPC on {url}\n"
        process.send_signal(signal.SIGINT)
        # A line that the signal interrupts may come twice.
        *lines, last = process.stdout.read().splitlines()
        assert last == "Stopped."
        assert where or not any("gRPC" in line for line in lines)
        assert process.wait(60) == 0


def test_an_address_that_is_advertised_in_vain() -> None:
    done = serve(ARTMANCER_TRITON_URL="a:1,b:1", ARTMANCER_ADVERTISED_URL="c:1")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "artmancer: ARTMANCER_ADVERTISED_URL: must name as many Tritons as ARTMANCER_TRITON_URL"
    ]
