from __future__ import annotations

import importlib.metadata
import shutil
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest

from frontend.launcher import installation, preflight
from frontend.launcher.errors import LaunchError
from tests.fakes.local_triton import ECHO_REPOSITORY, echo_settings, use_cache_folder

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.settings import Settings

EMPTY_PATH = "/nonexistent"


def problems(settings: Settings) -> tuple[str, ...]:
    with pytest.raises(LaunchError) as caught:
        preflight.check(settings)
    return caught.value.problems


def test_what_can_be_launched_passes_and_names_its_models() -> None:
    assert [model.name for model in preflight.check(echo_settings())] == ["echo"]


@pytest.mark.parametrize("field", ["triton_http_port", "triton_grpc_port", "triton_metrics_port"])
def test_a_port_in_use(field: str) -> None:
    settings = echo_settings()
    with socket.create_server(("127.0.0.1", getattr(settings, field))):
        (problem,) = problems(settings)
    assert f"port {getattr(settings, field)} is in use" in problem
    assert f"ARTMANCER_{field.upper()}" in problem


def test_one_port_given_twice() -> None:
    settings = echo_settings(port=18398, triton_grpc_port=18398)
    (problem,) = problems(settings)
    assert "ARTMANCER_PORT" in problem
    assert "ARTMANCER_TRITON_GRPC_PORT" in problem
    assert "18398" in problem


def test_a_config_name_that_no_model_has(tmp_path: Path) -> None:
    (problem,) = problems(echo_settings(model_config_name="gpu"))
    assert "configs/gpu.pbtxt" in problem
    assert "one of cpu" in problem


def test_no_config_name_means_config_pbtxt() -> None:
    assert preflight.check(echo_settings(model_config_name=""))


def test_a_folder_without_models(tmp_path: Path) -> None:
    (problem,) = problems(echo_settings(model_repository=tmp_path))
    assert str(tmp_path) in problem
    assert "ARTMANCER_MODEL_REPOSITORY" in problem


def test_a_config_that_is_none(tmp_path: Path) -> None:
    repository = shutil.copytree(ECHO_REPOSITORY, tmp_path / "models")
    config = repository / "echo" / "configs" / "cpu.pbtxt"
    config.write_text('nmae: "echo"')
    (problem,) = problems(echo_settings(model_repository=repository))
    assert str(config) in problem
    assert "nmae" in problem


def test_a_missing_bundle(tmp_path: Path) -> None:
    repository = shutil.copytree(ECHO_REPOSITORY, tmp_path / "models")
    with (repository / "echo" / "configs" / "cpu.pbtxt").open("a") as config:
        config.write('parameters [ { key: "BUNDLE" value { string_value: "../../bundles/x" } } ]')
    settings = echo_settings(model_repository=repository)
    bundle = tmp_path / "bundles" / "x"
    (problem,) = problems(settings)
    assert f"no bundle at {bundle}" in problem
    assert "make bundle" in problem
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").touch()
    assert preflight.check(settings)


def test_models_that_lack_the_same_bundle_share_a_line(tmp_path: Path) -> None:
    for name in ("one", "two"):
        model = shutil.copytree(ECHO_REPOSITORY / "echo", tmp_path / "models" / name)
        with (model / "configs" / "cpu.pbtxt").open("a") as config:
            config.write('parameters [{ key: "BUNDLE" value { string_value: "../../bundles/x" } }]')
    (problem,) = problems(echo_settings(model_repository=tmp_path / "models"))
    assert problem == (
        f"one and two have no bundle at {tmp_path / 'bundles' / 'x'}: run `make bundle`, or name "
        "another folder in the parameter BUNDLE"
    )


def test_a_stub_whose_libpython_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # What the loader does with the real one; no test can take the library away.
    stub = tmp_path / "stub"
    stub.write_text("#!/bin/sh\nexit 127\n")
    stub.chmod(0o755)
    monkeypatch.setattr(installation, "stub", lambda: stub)
    (problem,) = problems(echo_settings())
    assert installation.LIBPYTHON in problem
    assert "apt install libpython3" in problem


def test_a_python_without_a_stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installation, "stub", lambda: tmp_path / "absent")
    (problem,) = problems(echo_settings())
    assert "no stub for Python" in problem


def test_no_bash_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", EMPTY_PATH)
    (problem,) = problems(echo_settings())
    assert "no bash on PATH" in problem


def test_a_cache_whose_path_a_shell_does_not_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = use_cache_folder(monkeypatch, tmp_path / "it's mine")
    (problem,) = problems(echo_settings())
    assert f"does not take the path {cache}: set XDG_CACHE_HOME" in problem


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    use_cache_folder(monkeypatch, tmp_path / "file")
    (problem,) = problems(echo_settings())
    assert "set XDG_CACHE_HOME" in problem


def test_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "2.3.1")
    (problem,) = problems(echo_settings())
    assert "numpy 2.3.1" in problem
    assert "numpy<2" in problem


@pytest.mark.parametrize("free", [2**20, None], ids=["full", "absent"])
def test_too_little_shared_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int | None
) -> None:
    def usage(path: Path) -> SimpleNamespace:
        assert path == preflight.SHARED_MEMORY
        if free is None:
            raise FileNotFoundError
        return SimpleNamespace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    (problem,) = problems(echo_settings())
    assert problem.startswith(f"/dev/shm has {(free or 0) // 2**20} MiB free and 32 MiB are needed")
    assert "--shm-size" in problem


@pytest.mark.parametrize("limited_by", ["machine", "container"])
def test_too_little_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limited_by: str
) -> None:
    machine, limit = (2**30, "max") if limited_by == "machine" else (2**40, str(2**30))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=machine))
    monkeypatch.setattr(preflight, "MEMORY_LIMITS", (tmp_path / "absent", tmp_path / "limit"))
    (tmp_path / "limit").write_text(f"{limit}\n")
    repository = shutil.copytree(ECHO_REPOSITORY, tmp_path / "models")
    settings = echo_settings(model_repository=repository)
    assert preflight.check(settings)
    with (repository / "echo" / "configs" / "cpu.pbtxt").open("a") as config:
        config.write('parameters [ { key: "BUNDLE" value { string_value: "../../bundles/x" } } ]')
    bundle = tmp_path / "bundles" / "x"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").touch()
    assert preflight.check(settings)
    with (bundle / "weights").open("wb") as weights:
        weights.truncate(3 * 2**20)
    (problem,) = problems(settings)
    assert problem.startswith(
        "1,024 MiB of memory are available and the models need 1,027 MiB: stop other programs"
    )


def test_all_problems_are_reported_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", EMPTY_PATH)
    settings = echo_settings(model_repository=tmp_path)
    with socket.create_server(("127.0.0.1", settings.triton_http_port)):
        assert len(problems(settings)) == 3
