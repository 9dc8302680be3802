"""Owns how processes on one file of SQLite tell each other what they have written.

A writer leaves its topics in a table, in the same transaction. Everybody asks for the number of
the file's newest version, which takes no lock and reads no row, and reads the table if it is new.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import uuid
from typing import TYPE_CHECKING, Self

from frontend.supervision import supervised_thread

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from pathlib import Path

BUSY_S, IDLE_S = 0.01, 0.05
"""It is listened so often while somebody follows or runs a job, and else."""
KEPT = 1000
"""Topics in the table; who has not read so many has missed the rest."""
_TABLE = """
CREATE TABLE IF NOT EXISTS wakes (id INTEGER PRIMARY KEY, writer TEXT NOT NULL, topic TEXT NOT NULL)
"""


class Ear:
    """Hears what other processes have written; a context manager.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._name = uuid.uuid4().hex
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        # Not of the schema's version, because it holds nothing that counts.
        self._connection.execute(_TABLE)
        self._last = self._newest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._connection.close()

    def tell(self, connection: sqlite3.Connection, topics: Sequence[str]) -> None:
        """Add topics to the transaction that is open on a connection."""
        for topic in topics:
            added = connection.execute(
                "INSERT INTO wakes (writer, topic) VALUES (?, ?)", (self._name, topic)
            )
            connection.execute("DELETE FROM wakes WHERE id <= ?", ((added.lastrowid or 0) - KEPT,))

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        heard: Callable[[str], None],
        busy: Callable[[], bool],
    ) -> None:
        """Call `heard`, in its event loop, with each topic of other processes from now on.

        Args:
            loop: where.
            heard: what is called.
            busy: whether somebody follows or runs a job, called in any thread.
        """
        assert self._thread is None, "nobody would join the first one's thread"
        self._thread = supervised_thread(
            "store-ear", lambda: self._listen(loop, heard, busy), self._closing.is_set
        )
        self._thread.start()

    def _listen(
        self,
        loop: asyncio.AbstractEventLoop,
        heard: Callable[[str], None],
        busy: Callable[[], bool],
    ) -> None:
        version = None
        while not self._closing.wait(BUSY_S if busy() else IDLE_S):
            topics: list[str] = []
            # What a broken file does not tell, its readers find when they look for themselves.
            with contextlib.suppress(sqlite3.Error):
                (newest,) = self._connection.execute("PRAGMA data_version").fetchone()
                if newest != version:
                    version = newest
                    topics = self._read()
            for topic in dict.fromkeys(topics):
                loop.call_soon_threadsafe(heard, topic)

    def _read(self) -> list[str]:
        found = self._connection.execute(
            "SELECT id, writer, topic FROM wakes WHERE id > ? ORDER BY id", (self._last,)
        ).fetchall()
        if found:
            self._last = found[-1][0]
        return [topic for _, writer, topic in found if writer != self._name]

    def _newest(self) -> int:
        (newest,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM wakes").fetchone()
        return int(newest)
