from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_imports_run_one_way() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    root = Path(__file__).parents[2]
    checked = subprocess.run([tool, "--no-cache"], cwd=root, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
