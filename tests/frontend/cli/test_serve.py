"""`artmancer serve` as users meet it: a process with an exit code, output and signals."""

from __future__ import annotations

import contextlib
import json
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

# Sends the process a signal at the beginning of a function that stops something.
SIGNAL_AT_STOP = """
import os, pkgutil, sys

owner, name = os.environ["OWNER"], os.environ["NAME"]
owner = pkgutil.resolve_name(owner)
function = getattr(owner, name)

def at_stop(*arguments):
    os.kill(os.getpid(), int(os.environ["SIGNAL"]))
    function(*arguments)
    sys.stdout.write("whole\\n")

setattr(owner, name, at_stop)
from frontend.cli.main import main
main()
"""
# Says on stderr that all has been said on stdout.
TELL_WAITING = """
import sys
from frontend.serving import Serving

wait = Serving.wait

def waiting(self):
    sys.stderr.write("it waits\\n")
    sys.stderr.flush()
    wait(self)

Serving.wait = waiting
from frontend.cli.main import main
main()
"""
STOPS = {
    "http": {"OWNER": "frontend.serving", "NAME": "_stop"},
    "triton": {"OWNER": "frontend.launcher.supervisor:Supervisor", "NAME": "__exit__"},
    "start": {"OWNER": "frontend.launcher.tritonserver:TritonServer", "NAME": "kill"},
}


def serve(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a `serve`, by ARTMANCER unless a command is given, that is expected to fail."""
    return subprocess.run(
        [*(command or (ARTMANCER,)), "serve"],
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


def test_settings_that_are_no_lists() -> None:
    done = serve(
        ARTMANCER_ALLOWED_HOSTS="foo",
        ARTMANCER_CORS_ORIGINS="http://localhost:3000",
        ARTMANCER_TRUSTED_PROXIES="",
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        'artmancer: ARTMANCER_ALLOWED_HOSTS: must be a JSON list such as ["gpu1.example"]',
        'artmancer: ARTMANCER_CORS_ORIGINS: must be a JSON list such as ["https://app.example"]',
        'artmancer: ARTMANCER_TRUSTED_PROXIES: must be a JSON list such as ["10.0.0.0/8"]',
    ]


@pytest.mark.parametrize("field", ["port", "triton_grpc_port"])
def test_a_port_in_use(field: str) -> None:
    settings = echo_settings()
    with socket.create_server(("127.0.0.1", getattr(settings, field))):
        done = serve(**as_environment(settings))
    # Nothing has started, so nothing says that it does.
    assert (done.returncode, done.stdout) == (1, "")
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


def test_a_signal_after_a_start_that_failed_hides_no_reason(tmp_path: Path) -> None:
    repository = shutil.copytree(ECHO_REPOSITORY, tmp_path / "models")
    (repository / "echo" / "1" / "model.py").write_text("raise RuntimeError('no weights')\n")
    done = serve(
        sys.executable,
        "-c",
        SIGNAL_AT_STOP,
        **as_environment(echo_settings(model_repository=repository)) | STOPS["start"],
        SIGNAL=str(int(signal.SIGINT)),
    )
    assert done.returncode == 1
    assert done.stdout.endswith("\nwhole\n")
    last = done.stderr.splitlines()[-1]
    assert last == "artmancer: tritonserver ended with exit code 1 while starting"


@contextlib.contextmanager
def served(
    settings: Settings, *command: str | Path, stderr: int | None = None, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*(command or (ARTMANCER,)), "serve"],
        env=as_environment(settings) | {"PYTHONUNBUFFERED": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=stderr,
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
    ("stop", "number"), [("http", signal.SIGINT), ("triton", signal.SIGTERM)], ids=str
)
def test_a_signal_in_the_stop_after_a_fault_hides_no_reason(
    stop: str, number: signal.Signals
) -> None:
    settings = echo_settings(triton_restart_limit=0)
    command = (sys.executable, "-c", SIGNAL_AT_STOP)
    variables = STOPS[stop] | {"SIGNAL": str(int(number))}
    with served(settings, *command, stderr=subprocess.PIPE, **variables) as process:
        processes(settings)["tritonserver"].kill()
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.endswith("whole\n")
    assert errors.splitlines()[-1].startswith("artmancer: gave up after 0 restarts: ")


@pytest.mark.parametrize("lost", ["full", "unread"])
def test_serve_does_not_depend_on_who_takes_its_words(lost: str) -> None:
    with contextlib.ExitStack() as files:
        if lost == "full":
            output = files.enter_context(Path("/dev/full").open("w"))
        else:
            read, write = os.pipe()
            os.close(read)
            output = files.enter_context(os.fdopen(write, "w"))
        process = subprocess.Popen(
            [sys.executable, "-c", TELL_WAITING, "serve"],
            env=as_environment(echo_settings(triton_url="127.0.0.1:9")),
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                assert process.stderr is not None
                assert "it waits\n" in iter(process.stderr.readline, "")
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
            finally:
                process.kill()


def test_a_reader_that_has_left_ends_no_stop() -> None:
    with served(echo_settings(triton_url="127.0.0.1:9")) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("It asks Triton at")
        process.stdout.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


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
            assert process.stdout.readline() == f"It asks Triton at {url}\n"
        process.send_signal(signal.SIGINT)
        # A line that the signal interrupts may come twice.
        *lines, last = process.stdout.read().splitlines()
        assert last == "Stopped."
        assert where or not any("gRPC" in line for line in lines)
        assert process.wait(60) == 0


def test_serve_over_a_triton_that_does_not_answer_is_not_called_ready() -> None:
    settings = echo_settings(triton_url="127.0.0.1:9")
    process = subprocess.Popen(
        [ARTMANCER, "serve"],
        env=as_environment(settings) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            said = [process.stdout.readline().rstrip("\n") for _ in range(3)]
        finally:
            process.kill()
        assert process.stderr is not None
        logged = [json.loads(line) for line in process.stderr]
    down = [each for each in logged if each["event"] == "triton_down"]
    # Each model of a Triton has a watch.
    assert sorted(each["model"] for each in down) == ["image_edit", "smart_mask"]
    assert {each["address"] for each in down} == {"127.0.0.1:9"}
    url = f"http://127.0.0.1:{settings.port}"
    assert said == [
        f"ArtMancer serves: {url} (API: {url}/docs)",
        f"Whether it is ready: {url}/readyz",
        "It asks Triton at 127.0.0.1:9",
    ]


def test_an_address_that_is_advertised_in_vain() -> None:
    done = serve(ARTMANCER_TRITON_URL="a:1,b:1", ARTMANCER_ADVERTISED_URL="c:1")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "artmancer: ARTMANCER_ADVERTISED_URL: must name as many Tritons as ARTMANCER_TRITON_URL"
    ]
