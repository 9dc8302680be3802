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
    shutil.copy("/bin/cat", stub)
    pipe = subprocess.PIPE
    others = [subprocess.Popen(["true"]), subprocess.Popen([stub], stdin=pipe, stdout=pipe)]
    children = [psutil.Process(each.pid) for each in others]
    monkeypatch.setattr(psutil.Process, "children", lambda *_, **__: children)
    try:
        others[0].wait()
        # Until it runs, the kernel may call it by its parent's name.
        assert others[1].stdin is not None
        assert others[1].stdout is not None
        others[1].stdin.write(b"runs\n")
        others[1].stdin.flush()
        assert others[1].stdout.readline() == b"runs\n"
        assert stubs.stubs_of(os.getpid(), f"{tmp_path}/beat-") == {others[1].pid}
    finally:
        others[1].kill()
        others[1].communicate()
