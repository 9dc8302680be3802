from __future__ import annotations

import errno
import os
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from frontend.launcher import installation, leftovers
from frontend.launcher.errors import LaunchError
from tests.fakes.local_triton import use_cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def forgotten_root() -> Iterator[None]:
    installation.root.cache_clear()
    yield
    installation.root.cache_clear()


def test_every_part_of_the_wheel_is_found() -> None:
    assert os.access(installation.server(), os.X_OK)
    assert os.access(installation.stub(), os.X_OK)
    assert (installation.caches() / "local").is_dir()


def test_a_missing_wheel_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(LaunchError, match=r"nvidia-pytriton.* run `make`"):
        installation.root()


def test_the_backend_folder_holds_what_triton_looks_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = use_cache_folder(monkeypatch, tmp_path)
    folder = installation.backends()
    assert folder.parent == cache
    assert {path.name for path in (folder / "python").iterdir()} == {
        "libtriton_python.so",
        "triton_python_backend_stub",
        "triton_python_backend_utils.py",
    }
    assert all(path.exists() for path in (folder / "python").iterdir())
    assert installation.backends() == folder


def test_launchers_that_start_at_once_share_one_backend_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = use_cache_folder(monkeypatch, tmp_path)
    barrier = threading.Barrier(8)
    folders: list[Path] = []

    def assemble() -> None:
        barrier.wait()
        folders.append(installation.backends())

    threads = [threading.Thread(target=assemble) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 8
    assert list(cache.iterdir()) == [folders[0]]


@pytest.mark.parametrize("name", ["a b", "it's", "$HOME", "a;b", "a(b)", "a[b]", "a{b,c}", "a\\b"])
def test_a_path_that_a_shell_would_change_is_reached_by_a_link(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = use_cache_folder(monkeypatch, tmp_path / "cache")
    (folder := tmp_path / name).mkdir()
    link = installation.plain(folder)
    assert link.parent == cache
    assert installation.is_plain(link)
    assert link.resolve() == folder
    assert installation.plain(folder) == link


@pytest.mark.parametrize("name", ["a-b_c.d", "josé", "a+b=c,d@e%f"])
def test_a_path_that_a_shell_takes_stays(name: str, tmp_path: Path) -> None:
    said = subprocess.check_output(["bash", "-c", f" echo {tmp_path / name}"], text=True)
    assert said == f"{tmp_path / name}\n"
    assert installation.plain(tmp_path / name) == tmp_path / name


def test_a_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    use_cache_folder(monkeypatch, tmp_path / "file")
    with pytest.raises(LaunchError, match="XDG_CACHE_HOME"):
        installation.cache_folder()


def test_a_user_without_a_home_has_to_name_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a container's user has no line there
    with pytest.raises(LaunchError, match=r"set XDG_CACHE_HOME: .*no home is known for ~"):
        installation.cache_folder()


@pytest.mark.parametrize(
    "assemble", [installation.backends, lambda: installation.plain(Path("/a b"))]
)
def test_a_cache_on_a_file_system_without_links_is_named(
    assemble: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    cache = use_cache_folder(monkeypatch, tmp_path)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(LaunchError, match=r"takes no links.* XDG_CACHE_HOME") as caught:
        assemble()
    assert str(cache) in str(caught.value)
    assert list(cache.iterdir()) == []


def test_the_stub_finds_this_python_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/somewhere")
    path = installation.environment()["PATH"].split(os.pathsep)
    assert path == [str(Path(sys.executable).parent), "/somewhere"]


def test_triton_learns_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTMANCER_STORE_URL", "postgresql://me:secret@127.0.0.1/jobs")
    monkeypatch.setenv("ANOTHER", "is passed on")
    environment = installation.environment()
    assert environment["ANOTHER"] == "is passed on"
    assert not [name for name in environment if name.startswith("ARTMANCER_")]


def test_a_python_with_its_own_shared_library_gets_that_one_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / installation.LIBPYTHON).touch()
    monkeypatch.setattr(sysconfig, "get_config_var", {"LIBDIR": str(tmp_path)}.get)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    assert installation.environment()["LD_LIBRARY_PATH"] == f"{tmp_path}:/somewhere"
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert installation.environment()["LD_LIBRARY_PATH"] == str(tmp_path)


def test_a_python_without_one_is_left_to_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", {"LIBDIR": str(tmp_path)}.get)
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert "LD_LIBRARY_PATH" not in installation.environment()


def test_logs_do_not_pile_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = use_cache_folder(monkeypatch, tmp_path)
    for port in range(20000, 20040):
        path = installation.log_file(port)
        path.touch()
        os.utime(path, (port, port))
    assert path == cache / "triton-20039.log"
    assert len(list(cache.iterdir())) < 20
    assert path.exists()


def test_the_log_of_a_server_that_says_nothing_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = use_cache_folder(monkeypatch, tmp_path)
    for port in range(20000, 20040):
        for path in (installation.log_file(port), cache / f"triton-{port}.log.1"):
            path.touch()
            os.utime(path, (port, port))
        if port == 20000:
            # As a guard looks to others; it waits for its standard input.
            log = str(cache / "triton-20000.log")
            line = ["sh", "-c", "read _", leftovers.GUARD_MODULE, leftovers.LOG_OPTION, log]
            guard = subprocess.Popen(line, stdin=subprocess.PIPE)
    installation.log_file(20040)
    left = {path.name for path in cache.iterdir()}
    assert {"triton-20000.log", "triton-20000.log.1"} < left
    assert "triton-20001.log" not in left
    guard.communicate()
    installation.log_file(20040)
    assert not (cache / "triton-20000.log").exists()


def test_a_log_that_another_launcher_deletes_meanwhile_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = use_cache_folder(monkeypatch, tmp_path)
    cache.mkdir()
    (cache / "triton-20000.log").symlink_to(tmp_path / "gone")  # listed, and then not there
    assert installation.log_file(20001) == cache / "triton-20001.log"
