"""Owns a PostgreSQL server of Debian's package, for tests that need one."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from frontend.launcher import ports
from tests.fakes.processes import ended
from tests.fakes.small_disk import SmallDisk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

PROGRAMS = Path("/usr/lib/postgresql")
USER = "postgres"
START_S = 60.0
PAUSE_S = 0.05


def installed() -> bool:
    """Return whether there is a server to run."""
    return bool(_initdbs())


def _initdbs() -> list[Path]:
    return sorted(PROGRAMS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))


class PostgresServer:
    """A server on a free port of this machine, which has a database of no tables.

    It runs as the package's user where the tests run as root, which it refuses.
    """

    def __init__(self) -> None:
        if not installed():
            pytest.skip("PostgreSQL is not installed: its tests do not run")
        self._programs = _initdbs()[-1].parent
        # Not pytest's folder, which no other user may enter.
        self._folder = Path(tempfile.mkdtemp(prefix="artmancer-postgres-"))
        self._log = self._folder / "log"
        self._as: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self._folder, USER, USER)
            # Not Popen's `user`, for which Python forks, and gRPC's threads do not bear a fork.
            self._as = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        [self.port] = ports.free(1)
        self._schemas = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        options = ("--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8")
        subprocess.run(
            [*self._as, self._programs / "initdb", "--pgdata=data", *options],
            check=True,
            capture_output=True,
            cwd=self._folder,
        )
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)  # at once, but it frees its memory
            self._process.wait(START_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """Return the URL of a place without tables: a schema, which is made faster.

        Its connections have its name, which tells them from those that end a moment after a test.
        A server that a test has left killed is started again.
        """
        self.start()
        name = f"test{next(self._schemas)}"
        self.run(f"CREATE SCHEMA {name}")
        options = f"search_path={name}&application_name={name}"
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?{options}"

    @contextlib.contextmanager
    def on_small_disk(self, url: str) -> Iterator[tuple[str, SmallDisk]]:
        """Have the tables of a new database on a disk of their own; give its URL and the disk.

        The server's log of changes stays where it is: a server that cannot write that ends.
        """
        name = url.rpartition("=")[2]
        with SmallDisk(self._folder / name, USER) as disk:
            tables = disk.folder / "tables"
            subprocess.run([*self._as, "mkdir", "--mode=700", tables], check=True)
            self.run(f"CREATE TABLESPACE {name} LOCATION '{tables}'")
            try:
                yield f"{url}&default_tablespace={name}", disk
            finally:
                self.start()
                self.run(f"DROP SCHEMA {name} CASCADE")
                self.run(f"DROP TABLESPACE {name}")

    def run(self, sql: str) -> str:
        """Run a statement; return its rows, one a line."""
        options = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")
        place = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres")
        done = subprocess.run(
            [self._programs / "psql", *options, *place, "-c", sql],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def start(self) -> None:
        """Start the server; it answers on return."""
        until = time.monotonic() + START_S
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                # A killed server's children end a moment after it, and keep a new one out.
                self._process = self._spawn()
            assert time.monotonic() < until, self._log.read_text()[-4000:]
            time.sleep(PAUSE_S)

    def kill(self) -> None:
        """Kill the server with no warning; nothing of it answers on return."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children()
        self._process.kill()
        self._process.wait()
        # They notice it and end, but answer who is connected until then.
        ended(children)

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = ("-D", "data", "-p", str(self.port), "-k", str(self._folder), "-h", "127.0.0.1")
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*self._as, self._programs / "postgres", *options, "-c", "fsync=on"],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            return False
        ready = self._programs / "pg_isready"
        place = ("-q", "-h", "127.0.0.1", "-p", str(self.port))
        return subprocess.run([ready, *place], check=False).returncode == 0
