"""Owns what a model says under a Python that lacks model_kit."""

from __future__ import annotations

import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2] / "model_repository"
IMPORT = """
import sys, types
sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")
sys.path.insert(0, sys.argv[1])
import model
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide a venv with all packages of this one, but none that is installed as editable."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib"))
    site_packages = folder / packages.relative_to(sysconfig.get_path("data"))
    # The path alone: Python reads no .pth file in it, and editable packages need theirs.
    (site_packages / "all.pth").write_text(str(packages))
    return folder / "bin" / "python"


@pytest.mark.parametrize("model", ["edit_conditions", "fastsam", "image_edit", "smart_mask"])
def test_every_model_says_in_one_line_what_to_install(
    model: str, python: Path, tmp_path: Path
) -> None:
    folder = str(REPOSITORY / model / "1")
    failed = subprocess.run(
        [python, "-I", "-c", IMPORT, folder], cwd=tmp_path, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        "ImportError: the Python that runs Triton's models lacks the package model_kit; "
        "in ArtMancer's folder run: pip install --no-deps ."
    )
