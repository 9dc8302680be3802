"""scripts/setup on machines and package indexes made here; no real package is installed."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PYTHON = os.path.realpath(sys.executable)
# All that the script may need; nothing else is on PATH, so that no driver is found by chance.
TOOLS = (
    *("bash", "chmod", "dirname", "getconf", "grep", "ln", "mkdir", "mktemp", "printf"),
    *("rm", "sed", "sort", "stat", "timeout", "uname"),
)
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
)
TORCH, VISION = PINNED["torch"], PINNED["torchvision"]
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import shutil

def build_editable(folder, config_settings=None, metadata_directory=None):
    return shutil.copy("{wheel}", folder).rpartition("/")[2]
"""


def make_wheel(folder: Path, name: str, version: str, *requirements: str) -> Path:
    """Write a wheel that holds nothing but its name."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    if requirements:
        metadata.append("Provides-Extra: dev")
    metadata += [f"Requires-Dist: {requirement}; extra == 'dev'" for requirement in requirements]
    files = {
        "METADATA": "\n".join(metadata) + "\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    info = f"{name}-{version}.dist-info"
    record = [f"{info}/{file},," for file in (*files, "RECORD")]
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(f"{info}/{file}", text)
        wheel.writestr(f"{info}/RECORD", "\n".join(record) + "\n")
    return path


@dataclass(frozen=True)
class Index:
    """A package index on this machine.

    Attributes:
        url: its address.
        asked: every path that it was asked for.
    """

    url: str
    asked: list[str]


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Index]:
    """Serve the wheels in a folder as PyPI does: a page of links for each name."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            name = self.path.strip("/").rpartition("/")[2]
            if (folder / name).is_file():
                self.answer("application/octet-stream", (folder / name).read_bytes())
            elif wheels := list(folder.glob(f"{name}-*.whl")):
                links = [
                    f'<a href="/{wheel.name.replace("+", "%2B")}'
                    f'#sha256={hashlib.sha256(wheel.read_bytes()).hexdigest()}">{wheel.name}</a>'
                    for wheel in wheels
                ]
                self.answer("text/html", f"<!DOCTYPE html>{''.join(links)}".encode())
            else:
                self.send_error(404)

        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(403)

        def answer(self, media_type: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

        @property
        def path(self) -> str:
            return self._path.replace("%2B", "+")

        @path.setter
        def path(self, value: str) -> None:
            self._path = value

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Index(f"http://127.0.0.1:{server.server_port}", asked)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def pypi(tmp_path: Path) -> Iterator[Index]:
    """PyPI: each package once, PyTorch without a local version."""
    folder = tmp_path / "pypi"
    folder.mkdir()
    make_wheel(folder, "torch", TORCH)
    make_wheel(folder, "torchvision", VISION)
    make_wheel(folder, "ultralytics", PINNED["ultralytics"])
    with serving(folder) as index:
        yield index


@pytest.fixture
def cpu_wheels(tmp_path: Path) -> Path:
    """Provide the folder of PyTorch's index, which holds other versions and other builds too."""
    folder = tmp_path / "cpu"
    folder.mkdir()
    for version in (TORCH, "2.9.0"):
        for build in ("cpu", "cu130"):
            make_wheel(folder, "torch", f"{version}+{build}")
    for build in ("cpu", "cu130"):
        make_wheel(folder, "torchvision", f"{VISION}+{build}")
    return folder


@pytest.fixture(scope="module")
def empty_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run([PYTHON, "-m", "venv", folder], check=True)
    return folder


@dataclass(frozen=True)
class Machine:
    """A clone on a machine whose every program is known.

    Attributes:
        project: the clone.
        tools: the one folder on PATH.
        environment: of the script.
    """

    project: Path
    tools: Path
    environment: dict[str, str]

    def put(self, tool: str, script: str) -> None:
        """Replace a program by a shell script, or add it."""
        path = self.tools / tool
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.project / "scripts" / "setup", ".venv"],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    def set_up(self, **environment: str) -> str:
        """Run it to success and return its lines on PyTorch."""
        done = self.run(**environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return "\n".join(line for line in done.stdout.splitlines() if " PyTorch " in line)

    def refusal(self, **environment: str) -> str:
        """Run it to its refusal and return what it said."""
        done = self.run(**environment)
        assert done.returncode == 1, done.stdout + done.stderr
        assert not (self.project / ".venv").exists()
        assert done.stdout == ""
        return done.stderr.rstrip()

    def versions(self) -> dict[str, str]:
        packages = (self.project / ".venv").glob("lib/python*/site-packages/*.dist-info")
        return dict(path.name.removesuffix(".dist-info").rsplit("-", 1) for path in packages)


@pytest.fixture
def bare_machine(tmp_path: Path) -> Machine:
    """Provide a clone without .venv, and no network."""
    project, tools = tmp_path / "clone", tmp_path / "tools"
    tools.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, tool
        (tools / tool).symlink_to(found)
    (tools / "python3").symlink_to(PYTHON)
    (project / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup", project / "scripts")
    shutil.copy(ROOT / "constraints.txt", project)
    wheel = make_wheel(project, "artmancer_triton", "0.1.0", "torch>=2.13", "torchvision>=0.28")
    (project / "pyproject.toml").write_text(PYPROJECT)
    (project / "backend.py").write_text(BACKEND.format(wheel=wheel.name))
    environment = {
        "PATH": str(tools),
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
        "NO_PROXY": "127.0.0.1",
    }
    return Machine(project, tools, environment)


@pytest.fixture
def machine(bare_machine: Machine, empty_venv: Path, pypi: Index) -> Machine:
    """Provide a clone with an empty .venv, on a machine without a driver that reaches PyPI."""
    venv = shutil.copytree(empty_venv, bare_machine.project / ".venv", symlinks=True)
    pip = venv / "bin" / "pip"
    pip.write_text(pip.read_text().replace(str(empty_venv), str(venv)))
    # A busy machine may take longer to start pip than the script waits; pip has a deadline too.
    bare_machine.put("timeout", 'shift; exec "$@"')
    bare_machine.environment["PIP_INDEX_URL"] = pypi.url
    return bare_machine


def test_without_a_driver_both_packages_are_the_cpu_builds(
    machine: Machine, cpu_wheels: Path, pypi: Index
) -> None:
    with serving(cpu_wheels) as index:
        line = machine.set_up(TORCH_INDEX=index.url)
        assert line.startswith(f"Taking PyTorch {TORCH}+cpu")
        assert index.url in line
        versions = machine.versions()
        assert (versions["torch"], versions["torchvision"]) == (f"{TORCH}+cpu", f"{VISION}+cpu")
        assert versions["ultralytics"] == PINNED["ultralytics"]
        assert {"/torch/", "/torchvision/"}.isdisjoint(pypi.asked)
        # Nothing else is taken from an index that is not PyPI.
        assert {re.split(r"[/-]", path)[1] for path in index.asked} == {"torch", "torchvision"}
        index.asked.clear()
        assert f"Keeping PyTorch {TORCH}+cpu" in machine.set_up(TORCH_INDEX=index.url)
        assert index.asked == []


def test_a_driver_gets_pypis_build(machine: Machine, cpu_wheels: Path) -> None:
    machine.put("nvidia-smi", "exit 0")
    with serving(cpu_wheels) as index:
        line = machine.set_up(TORCH_INDEX=index.url)
    assert "from PyPI, with CUDA for the NVIDIA driver here" in line
    assert machine.versions()["torch"] == TORCH
    assert index.asked == []


@pytest.mark.parametrize("state", ["silent", "closed", "of other versions", "without torchvision"])
def test_an_index_that_does_not_help_is_left_for_pypi(
    machine: Machine, cpu_wheels: Path, state: str
) -> None:
    with contextlib.ExitStack() as stack:
        if state in ("silent", "closed"):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            if state == "closed":
                listener.close()
        else:
            name = "torch" if state == "of other versions" else "torchvision"
            (cpu_wheels / f"{name}-{PINNED[name]}+cpu-py3-none-any.whl").unlink()
            url = stack.enter_context(serving(cpu_wheels)).url
        line = machine.set_up(TORCH_INDEX=url)
    assert line.startswith(f"Taking PyTorch {TORCH} from PyPI")
    assert f"{url} did not offer {TORCH}+cpu in time" in line
    assert (machine.versions()["torch"], machine.versions()["torchvision"]) == (TORCH, VISION)


def test_pytorchs_own_index_is_asked_unless_the_setting_forbids_it(
    machine: Machine, tmp_path: Path
) -> None:
    with serving(tmp_path) as proxy:
        line = machine.set_up(TORCH_INDEX="pypi", HTTPS_PROXY=proxy.url)
        assert "from PyPI, with CUDA (TORCH_INDEX=pypi)" in line
        assert proxy.asked == []
        shutil.rmtree(machine.project / ".venv")
        line = machine.set_up(HTTPS_PROXY=proxy.url)
        assert "https://download.pytorch.org/whl/cpu did not offer" in line
        assert set(proxy.asked) == {"download.pytorch.org:443"}
    assert machine.versions()["torch"] == TORCH


@pytest.mark.parametrize(
    ("tool", "script", "refusal"),
    [
        ("uname", "echo Linux aarch64", "this is Linux aarch64; Linux x86_64 is needed"),
        ("uname", "echo Darwin arm64", "this is Darwin arm64; Linux x86_64 is needed"),
        (
            "getconf",
            'echo "getconf: GNU_LIBC_VERSION: unknown variable" >&2; exit 1',
            "this system has musl or another C library; glibc is needed: Debian 12, Ubuntu 22.04",
        ),
        (
            "getconf",
            "echo glibc 2.31",
            "this system has glibc 2.31; 2.35 or newer is needed: Debian 12, Ubuntu 22.04",
        ),
    ],
)
def test_another_kind_of_machine(
    bare_machine: Machine, tool: str, script: str, refusal: str
) -> None:
    bare_machine.put(tool, script)
    assert bare_machine.refusal() == f"scripts/setup: {refusal}"


@pytest.mark.parametrize(
    ("before", "problem"),
    [
        (
            'import sys; sys.version_info = (3, 10, 12, "final", 0)',
            "is Python 3.10; 3.11 or 3.12 is needed",
        ),
        (
            'import sys; sys.version_info = (3, 13, 1, "final", 0)',
            "is Python 3.13; 3.11 or 3.12 is needed",
        ),
        (
            'import sys; sys.modules["venv"] = None',
            f"lacks venv; Debian and Ubuntu: apt install python3.{sys.version_info[1]}-venv",
        ),
        (
            "import ctypes\ndef fail(*_): raise OSError\nctypes.CDLL = fail",
            f"lacks libpython3.{sys.version_info[1]}.so.1.0; Debian and Ubuntu: "
            f"apt install libpython3.{sys.version_info[1]}",
        ),
        ("raise SystemExit('Segmentation fault')", "does not run"),
    ],
)
def test_a_python_that_cannot_run_this(bare_machine: Machine, before: str, problem: str) -> None:
    bare_machine.put("python3", f"exec {PYTHON} -c '{before}\n'\"$2\"")
    assert bare_machine.refusal() == (
        f"scripts/setup: no Python here can run this project:\n  python3 {problem}"
    )


def test_no_python(bare_machine: Machine) -> None:
    (bare_machine.tools / "python3").unlink()
    assert "there is no python3" in bare_machine.refusal()


def test_another_python_is_taken_where_the_first_is_too_new(
    machine: Machine, bare_machine: Machine
) -> None:
    shutil.rmtree(machine.project / ".venv")
    fake = f"exec {PYTHON} -c 'import sys; sys.version_info = (3, 13, 1)\n'\"$2\""
    machine.put("python3", fake)
    (machine.tools / f"python3.{sys.version_info[1]}").symlink_to(PYTHON)
    machine.set_up(TORCH_INDEX="pypi")
    assert machine.versions()["torch"] == TORCH


def test_an_environment_that_was_moved_is_made_anew(machine: Machine) -> None:
    venv = machine.project / ".venv"
    (venv / "old").touch()
    assert machine.run(TORCH_INDEX="pypi").returncode == 0
    assert (venv / "old").exists()
    moved = replace(machine, project=machine.project.rename(machine.project.with_name("moved to")))
    moved.set_up(TORCH_INDEX="pypi")
    assert not (moved.project / ".venv" / "old").exists()
    assert f"{moved.project}/.venv/bin/python" in (moved.project / ".venv/bin/pip").read_text()
    assert moved.versions()["torch"] == TORCH


def test_an_environment_of_a_python_that_cannot_run_this(machine: Machine, pypi: Index) -> None:
    venv = machine.project / ".venv"
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "sitecustomize.py").write_text("import sys; sys.version_info = (3, 10, 12)\n")
    done = machine.run()
    assert (done.returncode, done.stderr) == (
        1,
        "scripts/setup: .venv/bin/python is Python 3.10; 3.11 or 3.12 is needed: remove .venv, and "
        "run this again\n",
    )
    assert pypi.asked == []


@pytest.mark.parametrize(
    ("stamp", "ready"), [(None, False), ("{here}\n", True), ("/elsewhere\n", False)]
)
def test_a_stamp_that_came_from_another_folder_is_none(
    stamp: str | None, ready: bool, tmp_path: Path
) -> None:
    here = tmp_path / "a clone"
    for name in ("scripts/setup", "pyproject.toml", "constraints.txt", "Makefile"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, here / name)
    (here / "scripts" / "setup").write_text('#!/bin/sh\nmkdir -p "$1"\n')
    (here / ".venv").mkdir()
    if stamp:
        (here / ".venv" / ".ready").write_text(stamp.format(here=here))
    make = ["make", "--directory", str(here)]
    assert subprocess.run([*make, "--question", "setup"]).returncode == (0 if ready else 1)
    subprocess.run([*make, "setup"], check=True)
    assert (here / ".venv" / ".ready").read_text() == f"{here}\n"
    assert subprocess.run([*make, "--question", "setup"]).returncode == 0


@pytest.mark.parametrize("tool", ["ln", "chmod"])
def test_a_folder_whose_file_system_cannot_hold_an_environment(
    bare_machine: Machine, tool: str
) -> None:
    bare_machine.put("stat", "echo v9fs")
    bare_machine.put(tool, "exit 1")
    assert bare_machine.refusal() == (
        "scripts/setup: . is on v9fs, which has no links or runs no programs; clone to a local disk"
    )
    assert not list(bare_machine.project.glob(".probe-*"))


def test_a_slow_file_system_is_said_to_be_one(machine: Machine) -> None:
    machine.put("stat", "echo nfs")
    done = machine.run(TORCH_INDEX="pypi")
    assert done.returncode == 0
    assert done.stdout.startswith("Note: . is on nfs, so set-up and every start are slow")
