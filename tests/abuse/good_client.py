"""Owns the well-behaved client beside an attack: what it does must go on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from tests.fakes.web_client import WebClient, edit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sized

    from tests.integration.server import Server

PHOTO = Path(__file__).parents[2] / "examples" / "warm-light.jpg"
CUP = [[285, 75]]
PAUSE_S = 0.1
# What a user bears. Two shared cores that are busy with the attack take most of it.
SLOWEST_CLICK_S = 2.0
SLOWEST_LIVEZ_S = 1.0
# Or so many times as long as before the attack, on a machine that is busy with something else.
TIMES_AS_LONG = 10.0
USUAL_COUNT = 5
# Of what the frontend had before. Its allocator keeps some of what it was given.
MAY_KEEP = 1.2
SETTLES_S = 30.0
# A server with 20 ms of work for each question. How late it is, the machine and this process are;
# it answers by how many times as long as on idle cores the work took. It ends with its only
# connection, and so with this process.
IDLE_SERVER = r"""
import asyncio, os, time

def work():
    begun, before = time.monotonic(), time.process_time()
    while (worked := time.process_time() - before) < 0.02:
        pass
    return (time.monotonic() - begun) / worked

async def answer(reader, writer):
    while await reader.read(1):
        writer.write(f"{work()}\n".encode())
    os._exit(0)

async def serve():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(serve())
"""


@dataclass
class GoodClient:
    """Edits, clicks and asks for /livez, each over and over, while the context lasts.

    At its end each edit has ended `done`, and neither clicks nor /livez were slow for this machine:
    they may take as many times as long as an idle server's work takes, and what that takes on top.
    """

    server: Server
    ends: list[str] = field(default_factory=list)
    """How each edit ended, and why if not `done`."""
    clicks: list[float] = field(default_factory=list)
    """Seconds of each click; infinite for one that failed."""
    livez: list[float] = field(default_factory=list)
    """Seconds of each answer; infinite for one that failed."""
    idle: list[float] = field(default_factory=list)
    """Seconds of each answer of the idle server."""
    slowed: list[float] = field(default_factory=list)
    """By how many times the idle server's work took longer than on idle cores."""
    failures: list[str] = field(default_factory=list)
    """Why clicks and requests for /livez failed."""

    async def __aenter__(self) -> Self:
        """Begin, and return once each kind of request has been answered some times."""
        self._rss = self.rss()
        self._leaving = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            self._web = await stack.enter_async_context(WebClient(self.server.url))
            self._reader, self._writer = await stack.enter_async_context(idle_server())
            self._tasks = [
                asyncio.create_task(self._over_and_over(each))
                for each in (self._edit, self._click, self._ask, self._ask_idle)
            ]
            stack.push_async_callback(cancelled, self._tasks)
            async with asyncio.timeout(120):
                while not (min(len(self.clicks), len(self.livez)) >= USUAL_COUNT and self.ends):
                    await asyncio.sleep(0.05)
                    for task in self._tasks:
                        if task.done():
                            task.result()
            self._opened = stack.pop_all()
        # Medians, because the first of all is slow.
        self._usual_click_s = statistics.median(self.clicks)
        self._usual_livez_s = statistics.median(self.livez)
        self.ends.clear()
        self.clicks.clear()
        self.livez.clear()
        self.idle.clear()
        self.slowed.clear()
        self.failures.clear()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        """Let the last edit end, and judge."""
        async with self._opened:
            self._leaving.set()
            await asyncio.gather(*self._tasks)
        self.note(str(self))
        if kind is None:
            assert set(self.ends) == {"done"}, self
            slowest_click_s = max(SLOWEST_CLICK_S, TIMES_AS_LONG * self._usual_click_s)
            slowest_livez_s = max(SLOWEST_LIVEZ_S, TIMES_AS_LONG * self._usual_livez_s)
            # The mean, because a single one of 20 ms may be 30 times as long.
            slowed, late_s = statistics.mean(self.slowed), max(self.idle)
            assert max(self.clicks) < slowest_click_s * slowed + late_s, self
            assert max(self.livez) < slowest_livez_s * slowed + late_s, self

    def __str__(self) -> str:
        """Return the figures."""
        return (
            f"edits {sorted(set(self.ends))} x {len(self.ends)}, slowest click "
            f"{max(self.clicks, default=0):.2f} s of {len(self.clicks)}, slowest livez "
            f"{max(self.livez, default=0):.2f} s of {len(self.livez)}, slowest idle server "
            f"{max(self.idle, default=0):.2f} s of {len(self.idle)} and "
            f"{statistics.mean(self.slowed or [0]):.1f} times as long, "
            f"RSS {self._rss / 1e6:.0f} -> {self.rss() / 1e6:.0f} MB {self.failures or ''}"
        )

    def note(self, figures: str) -> None:
        """Print an attack's figures, for runs with -s."""
        print(f"\n{figures}", flush=True)  # noqa: T201

    def rss(self) -> int:
        """Return the bytes of memory that the frontend's process has."""
        return int(psutil.Process(self.server.process.pid).memory_info().rss)

    async def worked_on(self, edits: int = 1) -> None:
        """Return once so many more edits have ended, and clicks and /livez were answered."""
        counts: list[tuple[Sized, int]] = [
            (self.ends, len(self.ends) + edits),
            (self.clicks, len(self.clicks) + 1),
            (self.livez, len(self.livez) + 1),
            (self.idle, len(self.idle) + 1),
        ]
        async with asyncio.timeout(120):
            while any(len(done) < wanted for done, wanted in counts):
                await asyncio.sleep(0.05)

    async def memory_is_back(self, before: int) -> None:
        """Return once the frontend has little more memory than it had before an attack.

        Raises:
            AssertionError: it keeps more.
        """
        deadline = time.monotonic() + SETTLES_S
        while (now := self.rss()) > MAY_KEEP * before:
            assert time.monotonic() < deadline, f"{before / 1e6:.0f} -> {now / 1e6:.0f} MB"
            await asyncio.sleep(0.5)

    async def _over_and_over(self, act: Callable[[], Awaitable[None]]) -> None:
        while not self._leaving.is_set():
            await act()
            await asyncio.sleep(PAUSE_S)

    async def _edit(self) -> None:
        try:
            task_id = await self._web.submit(edit(num_inference_steps=6))
            last = (await self._web.follow(task_id))[-1]
        except Exception as error:  # whatever it is, the client got no edit
            self.ends.append(repr(error))
        else:
            self.ends.append("done" if last["status"] == "done" else str(last["error"]))

    async def _click(self) -> None:
        body = {"image": base64.b64encode(PHOTO.read_bytes()).decode(), "points": CUP}
        async with timed(self.clicks, self.failures):
            answer = await self._web.http.post("/api/smart-mask", json=body)
            answer.raise_for_status()

    async def _ask(self) -> None:
        async with timed(self.livez, self.failures):
            (await self._web.http.get("/livez")).raise_for_status()

    async def _ask_idle(self) -> None:
        async with timed(self.idle, self.failures):
            self._writer.write(b"?")
            self.slowed.append(float(await self._reader.readline()))


@contextlib.asynccontextmanager
async def idle_server() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Run the idle server and yield a connection to it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", IDLE_SERVER, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            yield reader, writer
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def cancelled(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel what still runs, and return at its end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class timed:  # noqa: N801 (a context manager)
    """Adds the seconds of the context to a list; infinity, and why, where it failed."""

    def __init__(self, seconds: list[float], failures: list[str]) -> None:
        self._seconds = seconds
        self._failures = failures

    async def __aenter__(self) -> None:
        self._begun = time.monotonic()

    async def __aexit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        self._seconds.append(time.monotonic() - self._begun if error is None else float("inf"))
        if error is not None:
            self._failures.append(repr(error))
        return isinstance(error, Exception)
