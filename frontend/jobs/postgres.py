"""Owns the PostgreSQL driver: its connections, its errors, and its wake-ups between processes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import uuid
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import asyncpg

from frontend.errors import ClosingError, StoreAwayError
from frontend.jobs import statements
from frontend.jobs.driver import StoreRefusedError, check_version, no_topics
from frontend.jobs.statements import SCHEMA_VERSION
from frontend.supervision import supervised_task
from frontend.waiting import set_within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from frontend.jobs.driver import Topics
    from frontend.jobs.statements import Row, Steps

T = TypeVar("T")

CONNECTIONS = 4
"""Of one process, besides the one that listens."""
TIMEOUT_S = 5.0
"""A transaction, with the wait for a connection, that takes longer counts as an absent database. It
is half a lease, so that a renewal on a connection that says nothing is tried on another in time."""
CHANNEL = "artmancer"
_NOTIFY = "SELECT pg_notify($1, $2)"
RETRY_S = 1.0
LISTEN_CHECK_S = 10.0
"""So often the connection that listens is tried."""
# One for all processes that make or look for the tables.
_SCHEMA_LOCK = 0x41727473
# A killed server is any of these to who was talking to it.
_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class PostgresDriver:
    """Transactions on a database that processes of many machines share; `open` makes one.

    Args:
        url: of the database, which has the tables.
        pool: connections to it.
    """

    def __init__(self, url: str, pool: asyncpg.Pool) -> None:
        self._url = url
        self._pool = pool
        self._texts = _texts()
        self._name = uuid.uuid4().hex
        self._begun: set[asyncio.Task[Any]] = set()
        self._ear: asyncio.Task[object] | None = None
        self._closed = False

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect to a database, and make the tables if it has none.

        Args:
            url: `postgresql://user:password@host:port/database`.

        Raises:
            StoreRefusedError: it cannot be reached, or a newer program has written it.
        """
        pool = asyncpg.create_pool(
            url, min_size=0, max_size=CONNECTIONS, timeout=TIMEOUT_S, command_timeout=TIMEOUT_S
        )
        try:
            await pool
            async with pool.acquire(timeout=TIMEOUT_S) as connection, connection.transaction():
                await _prepare(connection)
        except BaseException as error:
            pool.terminate()
            # Without its text, which may quote a password.
            if isinstance(error, ValueError):
                raise StoreRefusedError(
                    "ARTMANCER_STORE_URL is no URL of a database, or its sslmode needs a root "
                    "certificate that is not there: name the file as sslrootcert"
                ) from None
            if isinstance(error, _AWAY):
                raise StoreRefusedError(f"ARTMANCER_STORE_URL: {_reason(error)}") from error
            raise
        return cls(url, pool)

    def write(self, steps: Steps[T], topics: Topics[T] = no_topics) -> asyncio.Future[T]:
        """Run a transaction that writes rows."""
        return self._begin(steps, topics)

    def write_part(self, steps: Steps[T], topics: Topics[T] = no_topics) -> asyncio.Future[T]:
        """Run a transaction that writes a part of a blob."""
        return self._begin(steps, topics)

    def read(self, steps: Steps[T]) -> asyncio.Future[T]:
        """Run a transaction that only reads; all its statements see one state."""
        return self._begin(steps, isolation="repeatable_read", readonly=True)

    def listen(
        self,
        heard: Callable[[str], None],
        busy: Callable[[], bool],  # noqa: ARG002 (nothing has to be looked for)
    ) -> None:
        """Call `heard` with the topics of what other processes write."""
        assert self._ear is None, "nobody would stop the first one's task"
        self._ear = supervised_task("store-ear", self._listen(heard))

    async def free_bytes(self) -> float:
        """Return infinity: a client does not learn how much room a server's disk has."""
        return math.inf

    async def shrink(self, *, freed: bool) -> None:
        """Leave the space to autovacuum."""

    async def close(self) -> None:
        """Finish what was begun, and let the connections go."""
        self._closed = True
        if self._ear is not None:
            self._ear.cancel()
            await asyncio.wait([self._ear])
        if self._begun:
            await asyncio.wait(self._begun)  # each has its time-out
        with contextlib.suppress(*_AWAY):
            async with asyncio.timeout(TIMEOUT_S):
                await self._pool.close()

    def _begin(
        self, steps: Steps[T], topics: Topics[T] = no_topics, **options: Any
    ) -> asyncio.Future[T]:
        if self._closed:
            raise ClosingError()
        task = asyncio.create_task(self._transact(steps, topics, options))
        self._begun.add(task)
        task.add_done_callback(self._forget)
        return asyncio.ensure_future(self._in_time(task))

    async def _in_time(self, transaction: asyncio.Task[T]) -> T:
        # Not `timeout`, which waits until a server that says nothing has heard that it is over.
        done, _ = await asyncio.wait([transaction], timeout=TIMEOUT_S)
        if not done:
            # Whatever swallowed this connection may have swallowed all that there are. The pool
            # makes new ones as they are needed; a slow database only makes them anew.
            await self._pool.expire_connections()
            raise StoreAwayError("The job store does not answer: TimeoutError")
        return transaction.result()

    def _forget(self, transaction: asyncio.Task[Any]) -> None:
        self._begun.discard(transaction)
        if not transaction.cancelled():
            transaction.exception()  # who asked may have left

    async def _transact(self, steps: Steps[T], topics: Topics[T], options: dict[str, Any]) -> T:
        with _away():
            async with (
                self._pool.acquire(timeout=TIMEOUT_S) as connection,
                connection.transaction(**options),
            ):
                outcome = await self._drive(connection, steps)
                for topic in topics(outcome):
                    await connection.execute(_NOTIFY, CHANNEL, self._name + topic)
        return outcome

    async def _drive(self, connection: Any, steps: Steps[T]) -> T:
        try:
            statement = next(steps)
            while True:
                text = self._texts[statement.name]
                found = await connection.fetch(text, *statement.values)
                statement = steps.send(cast("Sequence[Row]", found))
        except StopIteration as stop:
            outcome: T = stop.value
            return outcome

    async def _listen(self, heard: Callable[[str], None]) -> None:
        while True:
            with contextlib.suppress(*_AWAY):
                await self._listen_once(heard)
            await asyncio.sleep(RETRY_S)

    async def _listen_once(self, heard: Callable[[str], None]) -> None:
        """Listen until the connection is lost."""

        def told(_connection: object, _pid: object, _channel: object, payload: object) -> None:
            text = str(payload)
            if not text.startswith(self._name):  # who writes wakes its own process
                heard(text[len(self._name) :])

        lost = asyncio.Event()
        connection = await asyncpg.connect(self._url, timeout=TIMEOUT_S)
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, told)
            while not await set_within(lost, LISTEN_CHECK_S):
                # A host that vanished says nothing, and who only listens would wait for ever. To
                # listen once more changes nothing.
                await connection.execute(f"LISTEN {CHANNEL}", timeout=TIMEOUT_S)
        finally:
            connection.terminate()


def _texts() -> dict[str, str]:
    """Return the statements with what PostgreSQL needs of their comments."""
    return {name: statements.for_postgres(text) for name, text in statements.texts().items()}


async def _prepare(connection: Any) -> None:
    """Make the tables, or bring them to this program's version."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
    version = 0
    if await connection.fetchval("SELECT to_regclass('schema_version') IS NOT NULL"):
        version = await connection.fetchval("SELECT version FROM schema_version")
    check_version(version, "the database", "ARTMANCER_STORE_URL to another one")
    for script in statements.scripts("postgres", version):
        await connection.execute(statements.for_postgres(script))
    if version == 0:
        await connection.execute("INSERT INTO schema_version VALUES ($1)", SCHEMA_VERSION)
    elif version < SCHEMA_VERSION:
        await connection.execute("UPDATE schema_version SET version = $1", SCHEMA_VERSION)


@contextlib.contextmanager
def _away() -> Iterator[None]:
    """Turn everything that an absent, stopping or broken database raises into one error."""
    try:
        yield
    except _AWAY as error:
        kind = type(error).__name__
        raise StoreAwayError(f"The job store does not answer: {kind}", _reason(error)) from error


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
