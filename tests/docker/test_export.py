"""What the export container runs, outside of Docker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

EXPORT = Path(__file__).parents[2] / "docker" / "export.sh"
# Stands in for a long export.
STEP = """#!/usr/bin/env bash
trap 'echo tidied; exit 143' TERM
echo "$@"
sleep 1000 &
wait
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_step_that_runs_and_no_other_begins(
    tmp_path: Path, number: signal.Signals
) -> None:
    python = tmp_path / "python3"
    python.write_text(STEP)
    python.chmod(0o755)
    with subprocess.Popen(
        # A shell that runs the tests in the background has its children ignore it.
        ["env", "--default-signal=INT", EXPORT],
        env=os.environ | {"TRITON_PROFILE": "cpu", "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "-m export demo --out /bundles/demo\n"
            process.send_signal(number)
            assert process.stdout.readline() == "tidied\n"
            assert process.wait(60) == 143
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
