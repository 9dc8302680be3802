"""Owns frontends as processes that die and come back, and a client that outlives them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import uuid
from typing import TYPE_CHECKING, Any

import httpx

from frontend.launcher import ports
from tests.durability import victim
from tests.fakes.forks import FORKS
from tests.fakes.pictures import b64, noise
from tests.fakes.web_client import TERMINAL, Json, WebClient, edit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

    from tests.fakes.triton_server import FakeTriton

PATIENCE_S = 180.0
PAUSE_S = 0.05
PAUSED_S = 10.0
"""A frontend that is silent for longer is asked again, or another one is."""
CLUSTER_LEASE_S = 2 * PATIENCE_S
"""So long that only taking back, or leaving well, explains a job that goes on."""


class Frontend:
    """One address and one state folder, whoever serves them.

    Args:
        folder: for its state and its log.
        triton_url: host:port of the Triton that it uses; empty: those that are announced.
        lease_s: seconds until a job counts as lost; short, because a test waits so long for one.
        settings: further settings by name, without the ARTMANCER_ prefix.
    """

    def __init__(
        self, folder: Path, triton_url: str, lease_s: float = 3.0, **settings: str
    ) -> None:
        self._lease_s = lease_s
        [port] = ports.free(1)
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "frontend.log"
        values = {
            "PORT": str(port),
            "TRITON_URL": triton_url,
            "STATE_FOLDER": str(folder / "state"),
            "PING_INTERVAL_S": "0.1",
            "PING_TIMEOUT_S": "10",
            "CANCEL_TIMEOUT_S": "10",
            **settings,
        }
        self._environment = {f"ARTMANCER_{k}": v for k, v in values.items()}
        self._process: ForkServerProcess | None = None

    async def start(self, kill_at: str = "") -> None:
        """Start a process; it answers on return. It kills itself at the point `kill_at`."""
        self._process = FORKS.Process(
            target=victim.main, args=(self._environment, self._log, kill_at, self._lease_s)
        )
        self._process.start()
        async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient() as client:
            while True:
                assert self._process.exitcode is None, self._log.read_text()[-4000:]
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(PAUSE_S)

    async def died(self) -> None:
        """Return once the process has killed itself."""
        assert await self._exit_code() == -signal.SIGKILL, self._log.read_text()[-4000:]

    async def kill(self) -> None:
        """Kill the process with no warning."""
        self._send(signal.SIGKILL)
        await self.died()

    def pause(self) -> None:
        """Let the process stand still."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the process go on."""
        self._send(signal.SIGCONT)

    async def stop(self) -> None:
        """End the process as Ctrl-C does, if it still runs."""
        if self._process is not None and self._process.exitcode is None:
            self._send(signal.SIGINT)
            await self._exit_code()

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    async def _exit_code(self) -> int:
        assert self._process is not None
        async with asyncio.timeout(PATIENCE_S):
            while self._process.exitcode is None:
                await asyncio.sleep(0.01)
        return self._process.exitcode


class Cluster:
    """Two of each role over one store, and a Triton for each dispatcher, which alone is told it.

    Args:
        folder: for states and logs.
        tritons: one for each dispatcher.
        settings: of all processes, without the ARTMANCER_ prefix.
    """

    def __init__(self, folder: Path, tritons: list[FakeTriton], **settings: str) -> None:
        self.tritons = tritons
        common = {"STATE_FOLDER": str(folder / "state"), "MAX_IN_FLIGHT": "1", **settings}

        def made(name: str, url: str, **more: str) -> Frontend:
            own = folder / name
            own.mkdir()
            return Frontend(own, url, CLUSTER_LEASE_S, **(common | more))

        self.serving = [made(f"serve{i}", "", ROLES="serve") for i in range(2)]
        self.dispatching = [
            made(f"dispatch{i}", each.url, ROLES="dispatch") for i, each in enumerate(tritons)
        ]

    async def start(self) -> None:
        """Start all; those that serve are ready only once a dispatcher is there."""
        await asyncio.gather(*(each.start() for each in (*self.dispatching, *self.serving)))

    async def stop(self) -> None:
        await asyncio.gather(*(each.stop() for each in (*self.dispatching, *self.serving)))

    @property
    def starts(self) -> list[str]:
        """The attempts that the Tritons were given."""
        return [start for each in self.tritons for start in each.starts]

    async def started(self, count: int) -> None:
        """Return once the Tritons were given so many jobs."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.starts) < count:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def all_started(frontends: list[Frontend]) -> AsyncIterator[None]:
    """Start them together, and stop them whatever happens."""
    try:
        await asyncio.gather(*(each.start() for each in frontends))
        yield
    finally:
        for each in frontends:
            await each.stop()


class Survivor:
    """A client that sends again whatever was not answered.

    Args:
        urls: of the frontends; each call goes to one of them.
        rng: chooses it, and when a stream is dropped.
        drops: how likely it is after an event that the client leaves its stream, and comes back.
    """

    def __init__(self, *urls: str, rng: random.Random | None = None, drops: float = 0.0) -> None:
        self._urls = urls
        self._rng = rng or random.Random(0)
        self._drops = drops
        self.log: dict[int, Json] = {}
        """What the stream has told, by number."""

    async def submit(self, key: str = "", **changes: Any) -> str:
        """Submit an edit until there is an answer; return its id."""
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        answer = await self._persist("POST", "/api/generate", json=edit(**changes), headers=headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["task_id"])

    async def refused(self) -> None:
        """Submit an edit, once, and be told that there is no room for it now.

        Of a megabyte: a database has room for small ones where others have been.
        """
        large = b64(noise((1024, 1024)))
        request = edit(input_image=large, task_type="white-balance", conditional_images=None)
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            answer = await client.post(f"{self._urls[0]}/api/generate", json=request)
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) > 0

    async def cancel(self, task_id: str) -> str:
        """Cancel a job until there is an answer; return the job's state in it."""
        answer = await self._persist("POST", f"/api/generate/async/cancel/{task_id}")
        assert answer.status_code == 200, answer.text
        status: str = answer.json()["status"]
        return status

    async def result(self, task_id: str) -> Json:
        """Return a result."""
        answer = await self._persist("GET", f"/api/generate/result/{task_id}")
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    async def follow(self, task_id: str, patience_s: float = PATIENCE_S) -> list[Json]:
        """Follow a job to its end over any number of frontends; return its log."""
        async with asyncio.timeout(patience_s):
            while not self.log or self.log[max(self.log)]["status"] not in TERMINAL:
                with contextlib.suppress(httpx.TransportError, AssertionError):
                    async for event in self._events(task_id):
                        self._keep(event)
                        if event["status"] not in TERMINAL and self._rng.random() < self._drops:
                            break
                await asyncio.sleep(PAUSE_S)
        assert list(self.log) == list(range(1, len(self.log) + 1))
        return list(self.log.values())

    async def _events(self, task_id: str) -> AsyncIterator[Json]:
        newest = max(self.log, default=0)
        async with (
            WebClient(self._rng.choice(self._urls)) as client,
            contextlib.aclosing(client.events(task_id, newest)) as events,
        ):
            async for event in events:
                yield event

    def _keep(self, event: Json) -> None:
        if "seq" in event:
            known = self.log.setdefault(event["seq"], event)
            if known != event:
                raise RuntimeError(f"number {event['seq']} is {event} and was {known}")

    async def _persist(self, method: str, path: str, **options: Any) -> httpx.Response:
        async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(timeout=PAUSED_S) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    url = self._rng.choice(self._urls)
                    answer = await client.request(method, url + path, **options)
                    if answer.status_code != 503:
                        return answer
                await asyncio.sleep(PAUSE_S)
