"""Owns the SQLite driver: who runs transactions in which thread, and the file's settings."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeVar

from frontend.errors import ClosingError, StoreAwayError
from frontend.jobs import statements
from frontend.jobs.driver import check_version, no_topics, refused
from frontend.jobs.sqlite_ear import Ear
from frontend.jobs.statements import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from frontend.jobs.driver import Topics
    from frontend.jobs.statements import Row, Statement, Steps

T = TypeVar("T")

BUSY_TIMEOUT_S = 5.0
LOOK_S = 0.001
"""So often a statement is tried that another connection keeps out."""
READ, WRITE = "BEGIN", "BEGIN IMMEDIATE"
SHRINK_S = 0.03
"""How long free pages are given back one by one, until others have their turn."""
LIVE_PAGES_AT_ONCE = 2048
"""Of 4 KiB: so few are written anew instead, in one go that leaves no free ones."""
_SETTINGS = (
    "PRAGMA auto_vacuum = INCREMENTAL",
    "PRAGMA journal_mode = WAL",
    "PRAGMA foreign_keys = ON",
    # What is written anew needs space twice, and the disk may be full.
    "PRAGMA temp_store = MEMORY",
    # Debian's SQLite writes zeros over all that is deleted: over 16 results of 20 MB for 2.8 s, in
    # which nobody else writes.
    "PRAGMA secure_delete = FAST",
)


class SqliteDriver:
    """Transactions on one file, whose folder must be on this machine.

    No call blocks the event loop: rows are written by one thread, parts of blobs by another, and
    a third one reads.

    Args:
        path: of the file; it is made if it is missing.

    Raises:
        StoreRefusedError: the file cannot be opened, or a newer program has written it.
    """

    def __init__(self, path: Path) -> None:
        self._texts = statements.texts()
        self._closed = False
        self._may_shrink = False
        self._path = path
        # Of this process's two writers, which thus need not look for each other's gaps.
        self._turn = threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            with contextlib.ExitStack() as opened:
                self._rows = opened.enter_context(_Lane("store-rows", path, "FULL"))
                # The next commit of a row brings them to the disk: both write the same log.
                self._parts = opened.enter_context(_Lane("store-parts", path, "NORMAL"))
                self._reads = opened.enter_context(_Lane("store-reads", path, "NORMAL"))
                _prepare(self._rows.connection, path)
                self._file = _identity(path)
                self._ear = opened.enter_context(Ear(path))
                self._opened = opened.pop_all()
        except OSError as error:
            raise refused(path, str(error.strerror)) from error
        except sqlite3.Error as error:
            raise refused(path, str(error)) from error

    def write(self, steps: Steps[T], topics: Topics[T] = no_topics) -> asyncio.Future[T]:
        """Run a transaction that writes rows."""
        return self._run(self._rows, steps, WRITE, topics)

    def write_part(self, steps: Steps[T], topics: Topics[T] = no_topics) -> asyncio.Future[T]:
        """Run a transaction that writes a part of a blob."""
        return self._run(self._parts, steps, WRITE, topics)

    def read(self, steps: Steps[T]) -> asyncio.Future[T]:
        """Run a transaction that only reads."""
        return self._run(self._reads, steps, READ)

    async def free_bytes(self) -> int:
        """Return how many bytes the file's disk has left."""
        return (await asyncio.to_thread(shutil.disk_usage, self._path.parent)).free

    def listen(self, heard: Callable[[str], None], busy: Callable[[], bool]) -> None:
        """Call `heard` with the topics of what other processes write."""
        self._ear.start(asyncio.get_running_loop(), heard, busy)

    async def shrink(self, *, freed: bool) -> None:
        """Give some of the file's free pages back to the file system."""
        self._may_shrink |= freed
        if not self._may_shrink:
            return
        with contextlib.suppress(sqlite3.Error):  # another time
            self._may_shrink = await asyncio.get_running_loop().run_in_executor(
                self._parts.work, self._shrink
            )

    def _shrink(self) -> bool:
        connection = self._parts.connection
        free, live = self._pages()
        # A page may take a thousand times as long as another one: SQLite looks for the file's last
        # page in the list of its free ones, from one end.
        count, until = 1, time.monotonic() + SHRINK_S
        while free:
            started = time.monotonic()
            # Not execute, which takes only the first of the statement's steps: one page.
            with self._turn:
                _patiently(connection.executescript, f"PRAGMA incremental_vacuum({count})")
            free, live = self._pages()
            now = time.monotonic()
            if now >= until:
                break
            if now + 2 * (now - started) < until:
                count *= 2
        if not free or live > LIVE_PAGES_AT_ONCE:
            return free > 0
        with self._turn:
            _patiently(connection.execute, "VACUUM")
        return False

    def _pages(self) -> tuple[int, int]:
        """Return the numbers of the file's pages that are free and that are not."""
        execute = self._parts.connection.execute
        (free,) = _patiently(execute, "PRAGMA freelist_count").fetchone()
        (pages,) = _patiently(execute, "PRAGMA page_count").fetchone()
        return free, pages - free

    async def close(self) -> None:
        """Finish what was begun, and close the file."""
        self._closed = True
        await asyncio.to_thread(self._opened.close)

    def _run(
        self, lane: _Lane, steps: Steps[T], begin: str, topics: Topics[T] = no_topics
    ) -> asyncio.Future[T]:
        if self._closed:
            raise ClosingError()
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(
            lane.work, self._transact, lane.connection, steps, begin, topics
        )

    def _transact(
        self, connection: sqlite3.Connection, steps: Steps[T], begin: str, topics: Topics[T]
    ) -> T:
        # What has no name goes with this process, and a new file of that name would share its log.
        if begin != READ and _identity(self._path) != self._file:
            raise StoreAwayError(
                f"The job store's file {self._path.name} was removed or replaced while the server "
                "ran: it has to be started again"
            )
        try:
            turn = contextlib.nullcontext() if begin == READ else self._turn
            with turn, _transaction(connection, begin):
                outcome = self._drive(connection, steps)
                self._ear.tell(connection, topics(outcome))
        except sqlite3.Error as error:
            raise StoreAwayError(f"The job store does not answer: {error}") from error
        return outcome

    def _drive(self, connection: sqlite3.Connection, steps: Steps[T]) -> T:
        try:
            statement = next(steps)
            while True:
                statement = steps.send(self._execute(connection, statement))
        except StopIteration as stop:
            outcome: T = stop.value
            return outcome

    def _execute(self, connection: sqlite3.Connection, statement: Statement) -> Sequence[Row]:
        # By name: SQLite counts a tuple's values in the order in which $4 and $1 first appear.
        values = {str(number): value for number, value in enumerate(statement.values, 1)}
        text = self._texts[statement.name]
        found: Sequence[Row] = _patiently(connection.execute, text, values).fetchall()
        return found


class _Lane:
    """A thread and its connection."""

    def __init__(self, name: str, path: Path, synchronous: str) -> None:
        self.work = ThreadPoolExecutor(1, thread_name_prefix=name)
        # No time-out of SQLite's own: see `_patiently`.
        self.connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        self.connection.row_factory = sqlite3.Row
        self.connection.create_function("store_now", 0, time.time)
        for sql in (*_SETTINGS, f"PRAGMA synchronous = {synchronous}"):
            _patiently(self.connection.execute, sql)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.work.shutdown()
        self.connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of its name; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or bring them to this program's version."""
    with _transaction(connection, WRITE):
        version = 0
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'schema_version'")
        if tables.fetchone() is not None:
            (version,) = connection.execute("SELECT version FROM schema_version").fetchone()
        check_version(version, str(path), "ARTMANCER_STATE_FOLDER to another folder")
        for script in statements.scripts("sqlite", version):
            # Not executescript, which commits first.
            for sql in statements.split(script):
                connection.execute(sql)
        if version == 0:
            connection.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,))
        elif version < SCHEMA_VERSION:
            connection.execute("UPDATE schema_version SET version = ?", (SCHEMA_VERSION,))


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Commit what is done inside, or roll it back if anything is raised."""
    _patiently(connection.execute, begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Not always: SQLite itself has ended it on a full disk, and the error here would hide that.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _patiently(run: Callable[..., T], *arguments: Any) -> T:
    """Run a statement, again and again while another connection keeps it out.

    SQLite's own time-out looks every 100 ms in the end. Behind a process that writes on a slow
    disk without a pause it would find no gap for seconds.

    Raises:
        sqlite3.Error: the statement's; "database is locked" comes after BUSY_TIMEOUT_S.
    """
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return run(*arguments)
        except sqlite3.OperationalError as error:
            # Errors that Python itself raises have none.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if code & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(LOOK_S)
