"""Owns the places of the local tritonserver's parts, and putting the parts together.

The wheel keeps one stub per Python version apart from the Python backend. Triton looks for
both in one folder, so that folder is assembled from links in the user's cache.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from frontend.homes import expanded
from frontend.launcher import leftovers
from frontend.launcher.errors import LaunchError
from model_kit import children

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBPYTHON = f"libpython{PYTHON}.so.1.0"

_STUB = "triton_python_backend_stub"
_LOGS_KEPT = 16
_SHELL = re.compile(r"""[\s|&;<>()$`\\"'*?\[\]{}]""")


@functools.cache
def root() -> Path:
    """Return the folder of the tritonserver inside the installed nvidia-pytriton.

    Raises:
        LaunchError: it is not installed.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise LaunchError(
            "nvidia-pytriton, which carries tritonserver, is not installed: run `make`, "
            "or `pip install -c constraints.txt -e '.[local]'`; or name a Triton that runs in "
            "ARTMANCER_TRITON_URL"
        )
    return Path(spec.origin).parent / "tritonserver"


def server() -> Path:
    """Return the tritonserver binary."""
    return root() / "bin" / "tritonserver"


def caches() -> Path:
    """Return the folder of Triton's response cache implementations."""
    return root() / "caches"


def stub() -> Path:
    """Return the process that runs model.py under the Python that is running now."""
    return root() / "python_backend_stubs" / PYTHON / _STUB


def environment() -> dict[str, str]:
    """Return the environment in which tritonserver and its stubs find this Python.

    The stub embeds the first `python3` on PATH. It needs libpython as a shared library: a
    Python that has its own (pyenv, conda, uv) must get exactly that one, Debian's finds the
    system's without help.
    """
    variables = children.environment()
    variables["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    folders = [Path(sysconfig.get_config_var("LIBDIR") or ""), Path(sys.base_prefix) / "lib"]
    for folder in folders:
        if (folder / LIBPYTHON).exists():
            known = os.environ.get("LD_LIBRARY_PATH")
            variables["LD_LIBRARY_PATH"] = os.pathsep.join(
                [str(folder), *([known] if known else [])]
            )
            break
    return variables


def cache_folder() -> Path:
    """Return the user's cache folder for this project, created where missing, for him alone.

    Raises:
        LaunchError: it cannot be created.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "artmancer"
    try:
        folder = expanded(folder)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except (OSError, ValueError) as error:
        raise LaunchError(f"cannot create {folder}, set XDG_CACHE_HOME: {error}") from error
    return folder


def backends() -> Path:
    """Return a folder for `--backend-directory`; assemble it if it is missing.

    Its name is derived from what it links to, so it never has to change once it exists, and
    it appears by a rename, so that two launchers may start at once.

    Raises:
        LaunchError: the cache is on a file system without links.
    """
    links = [
        root() / "backends" / "python" / "libtriton_python.so",
        root() / "backends" / "python" / "triton_python_backend_utils.py",
        stub(),
    ]
    digest = hashlib.sha256("\n".join(map(str, links)).encode()).hexdigest()[:16]
    folder = cache_folder() / f"backends-{digest}"
    if not folder.exists():
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=folder.parent))
        (draft / "python").mkdir()
        try:
            for target in links:
                (draft / "python" / target.name).symlink_to(target)
        except OSError as error:
            shutil.rmtree(draft)
            raise _takes_no_links(folder.parent, error) from error
        try:
            draft.rename(folder)
        except OSError:  # the other launcher was first, with the same links
            shutil.rmtree(draft)
    return folder


def is_plain(path: Path) -> bool:
    """Return whether a shell takes the path as it is: Triton starts its stubs by one, unquoted."""
    return _SHELL.search(str(path)) is None


def plain(folder: Path) -> Path:
    """Return a folder's absolute path, or a link to it in the user's cache if that is not plain.

    Raises:
        LaunchError: the cache is on a file system without links.
    """
    folder = folder.resolve()
    if is_plain(folder):
        return folder
    link = cache_folder() / f"link-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    try:
        link.symlink_to(folder)
    except FileExistsError:
        pass  # an earlier launcher's, of the same name and so to the same folder
    except OSError as error:
        raise _takes_no_links(link.parent, error) from error
    return link


def _takes_no_links(folder: Path, error: OSError) -> LaunchError:
    return LaunchError(
        f"{folder} takes no links, as some network file systems do not: set XDG_CACHE_HOME to a "
        f"folder on a local disk ({error.strerror})"
    )


def log_file(grpc_port: int) -> Path:
    """Return the log of the tritonserver on this port, and delete all but the latest few logs.

    Those of servers that run stay, however long they have written nothing.
    """
    folder = cache_folder()
    used = leftovers.logs_in_use()
    logs = sorted(folder.glob("triton-*.log*"), key=_changed_at)
    for path in logs[:-_LOGS_KEPT]:
        # The guard has renamed what it wrote first.
        if path.with_name(path.name.removesuffix(".1")) not in used:
            path.unlink(missing_ok=True)
    return folder / f"triton-{grpc_port}.log"


def _changed_at(path: Path) -> float:
    """Return when a file was changed; 0 if another launcher has just deleted it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def loading_file(grpc_port: int) -> Path:
    """Return the file in which the tritonserver on this port writes what it is loading."""
    return cache_folder() / f"triton-{grpc_port}.loading"
