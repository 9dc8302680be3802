"""What all commands share: signals while they are imported, help, version, odd servers."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args, get_origin, get_type_hints

import pytest
import typer.models

from frontend.cli.app import app
from frontend.version import VERSION
from tests.frontend.scripted_server import Script, event, serving

from .command import ARTMANCER, run, started

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = {
    each.callback.__name__: each.callback for each in app.registered_commands if each.callback
}

# Sends the process a signal while it imports a module.
SIGNAL_AT_IMPORT = """
import os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["AT_IMPORT"]:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("module", ["frontend.cli.app", "typer", "PIL.Image", "pydantic", "httpx"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_imports_ends_in_one_line(
    tmp_path: Path, module: str, number: int, code: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SIGNAL_AT_IMPORT)
    variables = {"PYTHONPATH": str(tmp_path), "AT_IMPORT": module, "SIGNAL": str(int(number))}
    with started("edit", "--image", "absent.png", **variables) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (code, "", "artmancer: interrupted\n")


def test_the_version_is_the_package_s() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"artmancer {VERSION}\n")


@pytest.mark.parametrize(
    "words", [("--help",), ("edit", "--help"), ("--version",), ("key", "new", "somebody")]
)
def test_output_that_nobody_takes_ends_in_one_line_or_none(words: tuple[str, ...]) -> None:
    """Short output fails where Python writes it at last, long output at once."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([ARTMANCER, *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("artmancer: stdout: No space left on device\n")
    read, write = os.pipe()
    os.close(read)
    with open(write) as broken:  # noqa: PTH123
        done = subprocess.run([ARTMANCER, *words], stdout=broken, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "Broken pipe" not in done.stderr


def options(command: str) -> Iterator[typer.models.ParameterInfo]:
    hints = get_type_hints(COMMANDS[command], include_extras=True)
    for hint in hints.values():
        if get_origin(hint) is Annotated:
            yield from (
                each for each in get_args(hint) if isinstance(each, typer.models.ParameterInfo)
            )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_is_complete_and_loses_no_word(command: str) -> None:
    text = " ".join(run(command, "--help").stdout.split())
    assert " ".join((inspect.getdoc(COMMANDS[command]) or "").split()) in text
    for option in options(command):
        if option.hidden:
            continue
        assert option.help
        assert " ".join(option.help.split()) in text


def test_the_commands_are_listed_with_the_exit_codes() -> None:
    text = " ".join(run("--help").stdout.split())
    assert {"serve", "edit", "mask", "jobs", "status", "cancel", "result"} == COMMANDS.keys()
    for command in COMMANDS:
        assert re.search(rf" {command} [A-Z]", text)
    assert "Exit codes: 0 done; 1 the server or the edit failed; 2 bad input; 130 after" in text


@pytest.mark.parametrize("words", [(), ("key",)])
def test_no_summary_of_a_command_is_cut(words: tuple[str, ...]) -> None:
    _, _, listed = run(*words, "--help").stdout.partition("\nCommands:\n")
    assert listed
    assert "..." not in listed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("edit", "--image", "x", "--task", "foo"), "'--task': 'foo' is not one of 'removal', "),
        (("jobs", "--status", "foo"), "'--status': 'foo' is not one of 'queued', "),
    ],
)
def test_an_option_that_is_none_of_its_words(words: tuple[str, ...], said: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"Error: Invalid value for {said}")


def test_no_server_answers(image: Path) -> None:
    for words in (("edit", "--image", image, "--mask", image), ("jobs",), ("status", "x")):
        done = run(*words, url="http://127.0.0.1:9")
        assert done.returncode == 1
        assert done.stderr.startswith("artmancer: no frontend answers at http://127.0.0.1:9: ")
        assert done.stderr.endswith("; `artmancer serve` starts one\n")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "url",
    [
        *("nonsense", "127.0.0.1:8080", "localhost:8080", "http://[::1", "ftp://127.0.0.1", ""),
        *("http://..", "http://a..b", "http://127.0.0.1:99999", "http://127.0.0.1:-1"),
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    done = run("jobs", "--url", url)
    assert done.returncode == 2
    assert done.stderr == (
        "artmancer: --url, or ARTMANCER_URL, is no address such as http://127.0.0.1:8080\n"
    )


class Stranger(BaseHTTPRequestHandler):
    """Answers everything with a page, as a captive portal does."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        body = b"<html>Caf\xe9</html>"  # Latin-1
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize("command", ["edit", "mask", "jobs", "status", "cancel", "result"])
def test_another_server_answers(image: Path, tmp_path: Path, command: str) -> None:
    words: dict[str, tuple[object, ...]] = {
        "edit": ("--image", image, "--mask", image, "--out", tmp_path / "out.png"),
        "mask": ("--image", image, "--auto", "--out", tmp_path / "out.png"),
        "jobs": (),
        "result": ("x", "--out", tmp_path / "out.png"),
    }
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = run(command, *words.get(command, ("x",)), url=url)
        server.shutdown()
        thread.join()
    assert done.returncode == 1
    assert done.stderr.startswith("artmancer: what answers at http://127.0.0.1:")
    assert len(done.stderr.splitlines()) == 1


def test_what_the_terminal_cannot_show_is_escaped() -> None:
    failed = event("error", error="caf\xe9 \ud83d") | {"task_type": "removal"}
    page = {"tasks": [failed | {"created_at": "2026-11-29T10:00:00Z"}], "next_before": None}
    with (
        serving(Script(pages=[page])) as url,
        started("jobs", url=url, PYTHONIOENCODING="ascii") as process,
    ):
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert output.endswith("error       caf\\xe9 \\ud83d\n")
