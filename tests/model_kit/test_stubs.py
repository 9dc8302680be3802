from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import psutil

from model_kit import stubs

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_process_that_ends_meanwhile_hides_no_stub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "triton_python_backend_stub"
    shutil.copy("/bin/sleep", stub)
    others = [subprocess.Popen(["true"]), subprocess.Popen([stub, "1000"])]
    children = [psutil.Process(each.pid) for each in others]
    monkeypatch.setattr(psutil.Process, "children", lambda *_, **__: children)
    try:
        others[0].wait()
        assert stubs.stubs_of(os.getpid(), f"{tmp_path}/beat-") == {others[1].pid}
    finally:
        others[1].kill()
        others[1].wait()
