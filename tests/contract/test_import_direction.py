from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_imports_run_one_way() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    root = Path(__file__).parents[2]
    models = os.pathsep.join(str(folder) for folder in root.glob("model_repository/*/1"))
    checked = subprocess.run(
        [tool, "--no-cache"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": models},
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
