"""Owns the demo bundle as the models load it."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.demo_edits import bundle as demo_bundle
from image_edit.engine.bundle import Bundle, load_bundle
from image_edit.settings import Tuning

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = ROOT / "bundles" / "demo"
    if not demo_bundle.is_current(folder):
        # Not there: several processes of pytest may run at once.
        folder = tmp_path_factory.mktemp("bundles") / "demo"
        demo_bundle.place(folder)
    return folder


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> Bundle:
    """Shared by all tests: what one changes it must put back."""
    return load_bundle(bundle_folder, Tuning("float32"), "cpu")
