"""Owns what must hold before tritonserver is started.

Most of these mistakes do not make tritonserver fail: it hangs unready, answers with empty
tensors, or silently takes another configuration.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from frontend.launcher import installation, ports, repository
from frontend.launcher.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from frontend.settings import Settings

_LOADER_FAILED = 127  # exit code of a program whose shared libraries are not all there

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_BYTES = 2**25
"""Carries pictures of 3 megapixels: a model's region grows to 2.5 times the largest tensor."""
SERVER_BYTES = 2**29
"""What tritonserver, the frontend and the models without weights take."""
LIBRARIES_BYTES = 2**29
"""What a model with weights takes beside them: its libraries, and a small edit."""
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where a container reads its own limit, by cgroup v2 and v1."""


def check(settings: Settings) -> list[repository.Model]:
    """Return the models that tritonserver is going to load.

    Raises:
        LaunchError: something does not hold; every problem found has its line in it.
    """
    problems = [
        *_python_problems(),
        *_path_problems(),
        *_port_problems(settings),
        *_shared_memory_problems(),
        *_repository_problems(settings),
    ]
    if problems:
        raise LaunchError(*problems)
    models = repository.models(settings.model_repository, settings.model_config_name)
    if problems := [*_bundle_problems(models), *_memory_problems(models)]:
        raise LaunchError(*problems)
    return models


def _python_problems() -> Iterator[str]:
    environment = installation.environment()
    python = installation.PYTHON
    if not installation.stub().exists():
        yield f"nvidia-pytriton has no stub for Python {python}: use Python 3.11 or 3.12"
    elif _stub_exit_code(environment) == _LOADER_FAILED:
        yield (
            f"Triton's stub does not find {installation.LIBPYTHON}: install it (Debian and "
            f"Ubuntu: `apt install libpython{python}`), or use a Python that was built with "
            "--enable-shared"
        )
    if shutil.which("bash", path=environment["PATH"]) is None:
        yield "Triton starts its stubs with bash, and there is no bash on PATH: install it"
    numpy = importlib.metadata.version("numpy")
    if int(numpy.split(".")[0]) >= 2:
        yield (
            f"numpy {numpy} makes this Triton answer with empty tensors: "
            "`pip install -c constraints.txt 'numpy<2'`"
        )


def _stub_exit_code(environment: dict[str, str]) -> int:
    """Run the stub without arguments, which it refuses once its libraries are loaded."""
    return subprocess.run(
        [installation.stub()],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    ).returncode


def _path_problems() -> Iterator[str]:
    try:
        folder = installation.cache_folder()
    except LaunchError as error:
        yield from error.problems
        return
    if not installation.is_plain(folder):
        yield (
            f"Triton starts its stubs by a shell, which does not take the path {folder}: set "
            "XDG_CACHE_HOME to a folder without spaces, quotes, brackets or $ in its path"
        )


def _port_problems(settings: Settings) -> Iterator[str]:
    seen = {settings.port: "ARTMANCER_PORT"}
    for field in ("triton_http_port", "triton_grpc_port", "triton_metrics_port"):
        port, variable = getattr(settings, field), f"ARTMANCER_{field.upper()}"
        if port is None:
            continue
        if port in seen:
            yield f"{variable} and {seen[port]} are both {port}: give each a port of its own"
        elif not ports.is_free(port):
            yield f"port {port} is in use: stop what uses it, or set {variable} to another"
        seen[port] = variable


def _shared_memory_problems() -> Iterator[str]:
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        free = 0
    if free < SHARED_MEMORY_BYTES:
        yield (
            f"{SHARED_MEMORY} has {_mib(free)} free and {_mib(SHARED_MEMORY_BYTES)} are needed, as "
            "Triton passes pictures through it: remove what fills it, or start the container with "
            "a larger one (--shm-size)"
        )


def _memory_problems(models: Sequence[repository.Model]) -> Iterator[str]:
    """Compare before the kernel does: it would kill the model, and again after each restart."""
    bundles = {model.bundle for model in models if model.bundle is not None}
    files = (file for bundle in bundles for file in bundle.rglob("*") if file.is_file())
    weights = sum(file.stat().st_size for file in files)
    needed = SERVER_BYTES + LIBRARIES_BYTES * len(bundles) + weights
    if (available := _available_memory()) < needed:
        yield (
            f"{_mib(available)} of memory are available and the models need {_mib(needed)}: stop "
            "other programs, or raise the container's limit"
        )


def _available_memory() -> int:
    """Return the bytes that new processes may take, by the machine and by its container."""
    limits = [int(psutil.virtual_memory().available)]
    for path in MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # ValueError: the word "max", no limit
            limits.append(int(path.read_text()))
    return min(limits)


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def _repository_problems(settings: Settings) -> Iterator[str]:
    folder: Path = settings.model_repository
    name = settings.model_config_name
    if not any(folder.glob("*/config.pbtxt")):
        yield f"no model in {folder}: set ARTMANCER_MODEL_REPOSITORY to a model repository"
    elif name and name not in (known := repository.config_names(folder)):
        yield (
            f"no model in {folder} has configs/{name}.pbtxt: set ARTMANCER_MODEL_CONFIG_NAME "
            f"to one of {', '.join(sorted(known))}, or to nothing for config.pbtxt"
        )


def _bundle_problems(models: Sequence[repository.Model]) -> Iterator[str]:
    """Yield a line for each folder, since several models may need the same."""
    needed_by: dict[Path, list[str]] = {}
    for model in models:
        if model.bundle is not None and not (model.bundle / "manifest.json").exists():
            needed_by.setdefault(model.bundle, []).append(model.name)
    for bundle, names in needed_by.items():
        yield (
            f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} no bundle at {bundle}: "
            "run `make bundle`, or name another folder in the parameter BUNDLE"
        )
