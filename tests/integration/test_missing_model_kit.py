"""The models under a Python that lacks model_kit, in the real tritonserver."""

from __future__ import annotations

import re
import shutil
import sysconfig
import venv
from pathlib import Path

import pytest

from frontend.launcher import installation
from frontend.launcher.errors import LaunchError
from frontend.launcher.supervisor import Supervisor
from tests.fakes.local_triton import echo_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def python_without_model_kit(tmp_path: Path) -> Path:
    """A venv with all packages of this one, but none that is installed as editable."""
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=False)
    site_packages = folder / Path(sysconfig.get_path("purelib")).relative_to(
        sysconfig.get_path("data")
    )
    # The path alone: Python reads no .pth file in it, and editable packages need theirs.
    (site_packages / "all.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def test_every_model_fails_to_load_with_one_line_that_says_what_to_install(
    tmp_path: Path, python_without_model_kit: Path
) -> None:
    repository = tmp_path / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository)
    # `parameters` is repeated in a configuration, so more of it may stand at the end.
    environment = (
        'parameters [ { key: "EXECUTION_ENV_PATH" '
        f'value {{ string_value: "{python_without_model_kit}" }} }} ]'
    )
    configurations = list(repository.rglob("*.pbtxt"))
    for path in configurations:
        path.write_text(f"{path.read_text()}\n{environment}\n")
    settings = echo_settings(model_repository=repository, model_config_name="cpu")
    with pytest.raises(LaunchError), Supervisor(settings):
        pass
    log = installation.log_file(settings.triton_grpc_port).read_text()
    failures = dict(re.findall(r"failed to load '(\w+)' version 1: (.*)", log))
    assert failures.keys() == {path.name for path in repository.iterdir()}
    for failure in failures.values():
        assert (
            "the Python that runs Triton's models lacks the package model_kit; "
            "in ArtMancer's folder run: pip install --no-deps ."
        ) in failure
