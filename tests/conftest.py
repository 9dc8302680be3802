"""Owns what holds for every test process."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

# Read when torch loads. With libgomp's default, threads that wait for a preempted partner spin,
# and tests of the pipeline take ten times as long beside a running server.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Other workers use the other cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Ignored under nohup and in a script's background, which the programs that tests start would
# inherit. A function as handler is not inherited.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler)

# httpx reads all 140 certificate authorities for each client, 60 ms. No test speaks TLS, so one
# is enough, here and in the processes that tests start.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "fakes" / "authority.pem")

# No test's jobs outlive its process; servers side by side have folders of their own below it.
_state = tempfile.TemporaryDirectory(prefix="artmancer-state-")
os.environ["XDG_STATE_HOME"] = _state.name
# Launchers delete all but the latest logs there, perhaps those of another test process's servers.
os.environ["XDG_CACHE_HOME"] = str(Path(_state.name) / "cache")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server of this test process, which a test may kill."""
    with PostgresServer() as server:
        yield server
