"""Owns a running stack of docker-compose.yml: one project, brought up and taken down."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from frontend.launcher import ports

from .engine import Json, docker

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
TAG = "test"
IMAGES = ("frontend", "triton", "export")
SERVICES = ("frontend", "triton-cpu")
BUILD_TIMEOUT_S, UP_TIMEOUT_S = 3000.0, 400.0
# Takes the place of an operator's .env, and of what an operator's shell exports.
DEFAULTS = ROOT / ".env.example"
SETTINGS = re.findall(r"^([A-Z_]+)=", DEFAULTS.read_text(), re.MULTILINE)
# Those that stand in for a registry's are named by the environment.
BASES = {"PYTHON_IMAGE", "TRITON_IMAGE", "POSTGRES_IMAGE", "PROXY_IMAGE"}
NOT_FOR_TESTS = {*SETTINGS} - BASES

# Runs in a container: ends or stops one process by a signal's number. That may end the container,
# so whoever asks is answered before.
SIGNAL = """
import os, psutil, subprocess, sys
number, name, argument = sys.argv[1:]
for process in psutil.process_iter(["name", "cmdline"]):
    if name in process.info["name"] and argument in " ".join(process.info["cmdline"]):
        subprocess.Popen(
            ["sh", "-c", f"sleep 1; kill -{number} {process.pid}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        sys.exit()
sys.exit(f"no process {name} with {argument}")
"""


def image(name: str) -> str:
    """Return the tag under which the tests build one of `IMAGES`."""
    return f"artmancer-{name}:{TAG}"


@dataclass(frozen=True)
class Stack:
    """A compose project."""

    project: str
    overrides: tuple[Path, ...]
    """Compose files that change docker-compose.yml, in this order."""
    port: int
    """Where clients are served on this machine: by the proxy in its profile, else the frontend."""
    profiles: tuple[str, ...] = ("cpu",)
    settings: tuple[tuple[str, str], ...] = ()
    """What stands in an operator's .env."""

    @property
    def url(self) -> str:
        """Where clients are served, for a stack that has a way out."""
        return f"http://127.0.0.1:{self.port}"

    def compose(
        self,
        *arguments: str,
        profiles: tuple[str, ...] | None = None,
        stdin: bytes = b"",
        timeout_s: float = UP_TIMEOUT_S,
    ) -> bytes:
        """Run `docker compose` for this project and return its stdout.

        Args:
            arguments: those of the command line.
            profiles: others than the stack's own.
            stdin: what the command reads.
            timeout_s: seconds until the command counts as hung.
        """
        files = [ROOT / "docker-compose.yml", *self.overrides]
        published = "ARTMANCER_PROXY_PORT" if "proxy" in self.profiles else "ARTMANCER_PORT"
        # Docker takes any free port for 0.
        own = {"ARTMANCER_TAG": TAG, "ARTMANCER_PORT": "0", published: str(self.port)}
        own |= dict(self.settings)
        return docker(
            *("compose", f"--project-name={self.project}"),
            *(f"--profile={profile}" for profile in profiles or self.profiles),
            *(f"--file={file}" for file in files),
            f"--env-file={DEFAULTS}",
            *arguments,
            stdin=stdin,
            timeout_s=timeout_s,
            environment={
                name: value for name, value in os.environ.items() if name not in NOT_FOR_TESTS
            }
            | own,
        )

    def build(self) -> None:
        """Build all three images of the profile."""
        for profile, services in (("cpu", SERVICES), ("export", ("export-cpu",))):
            self.compose("build", *services, profiles=(profile,), timeout_s=BUILD_TIMEOUT_S)

    def up(self) -> None:
        """Build the bundles and start the services; block until all are healthy.

        Raises:
            AssertionError: one is not; the text ends with the logs.
        """
        self.compose("run", "--rm", "-T", "export-cpu", profiles=("export",))
        try:
            self.compose("up", "--detach", "--wait")
        except AssertionError as error:
            logs = self.compose("logs", "--tail=60").decode(errors="replace")
            raise AssertionError(f"{error}\n{logs}") from None

    def down(self) -> None:
        """Remove the project, its volumes too."""
        # All profiles, so that no service is left running; a stuck one is killed.
        self.compose("down", "--volumes", "--remove-orphans", "--timeout=60", profiles=("*",))

    def container(self, service: str) -> str:
        """Return the id of a service's container, running or not."""
        return self.compose("ps", "--all", "--quiet", service).decode().strip()

    def inspect(self, service: str) -> Json:
        """Return all that the engine knows of a service's container."""
        found: list[Json] = json.loads(docker("inspect", self.container(service)))
        return found[0]

    def execute(self, service: str, *command: str, stdin: bytes = b"") -> str:
        """Run a command inside a service's container and return its stdout."""
        return self.compose("exec", "-T", service, *command, stdin=stdin).decode()

    def signal(self, number: int, name: str, argument: str = "") -> None:
        """Send a signal to one process inside Triton's container, a second from now.

        Args:
            number: the signal's.
            name: a part of the process's name.
            argument: a part of its command line.
        """
        self.execute("triton-cpu", "python3", "-c", SIGNAL, str(number), name, argument)

    def shared_memory(self) -> set[str]:
        """Return the names of the regions in Triton's /dev/shm."""
        return set(self.execute("triton-cpu", "ls", "/dev/shm").split())

    def volume_files(self) -> dict[str, str]:
        """Return what is in the project's volumes: path to size and time of change."""
        found = {}
        for volume in self.leftovers("volume"):
            listed = docker(
                *("run", "--rm", "--network=none", f"--volume={volume}:/volume:ro"),
                *("--entrypoint=find", image("frontend")),
                *("/volume", "-type", "f", "-printf", r"%P\t%s %T@\n"),
            ).decode()
            for line in listed.splitlines():
                path, state = line.split("\t")
                found[f"{volume.removeprefix(f'{self.project}').strip('_-')}/{path}"] = state
        return found

    def leftovers(self, kind: str) -> list[str]:
        """Return the project's `container`s, `volume`s or `network`s, running or not."""
        every = ["--all"] if kind == "container" else []
        of_project = f"--filter=label=com.docker.compose.project={self.project}"
        form = "--format={{.Names}}" if kind == "container" else "--format={{.Name}}"
        return docker(kind, "ls", *every, of_project, form).decode().split()


@contextlib.contextmanager
def running(
    project: str, *overrides: Path, profiles: tuple[str, ...] = ("cpu",), **settings: str
) -> Iterator[Stack]:
    """Bring a project up from nothing; take it down whatever happens."""
    (port,) = ports.free(1)
    stack = Stack(project, overrides, port, profiles, tuple(settings.items()))
    stack.down()
    try:
        stack.up()
        yield stack
    finally:
        stack.down()
