"""The demo's bundle, which stands in for the real one."""

from pathlib import Path

import pytest

from export.demo_edits import bundle as demo_bundle


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    demo_bundle.place(folder)
    return folder
