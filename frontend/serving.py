"""Owns running the frontend, and a Triton below it unless the settings name one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from frontend.http.app import create_app
from frontend.http.connections import Connections, raise_file_limit
from frontend.jobs import places
from frontend.jobs.driver import StoreRefusedError
from frontend.keys import KeysError
from frontend.launcher import installation
from frontend.launcher.errors import LaunchError
from frontend.launcher.supervisor import Supervisor
from frontend.signals import hear_no_more

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI

    from frontend.settings import Settings

_POLL_S = 0.1
_OPEN_STREAMS_S = 2  # how long answers and uploads may go on after the app has shut down
_CUT_S = 2  # how long what served those that were cut then may take to notice
_STOP_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Serving:
    """A frontend that answers."""

    url: str
    """Its address, `http://host:port`."""
    triton: Supervisor | None
    """The Triton launched for it; None if it uses another."""
    _http: threading.Thread

    def check(self) -> None:
        """Return if the frontend and its Triton run.

        Raises:
            LaunchError: Triton could not be kept running, or the HTTP server ended.
        """
        if self.triton is not None and self.triton.failure is not None:
            raise self.triton.failure
        if not self._http.is_alive():
            raise LaunchError("the HTTP server ended by itself")

    def wait(self) -> None:
        """Block while the frontend and its Triton run.

        Raises:
            LaunchError: see `check`.
        """
        while True:
            self.check()
            # Not join: after a KeyboardInterrupt in it, Python 3.11 considers the thread ended.
            time.sleep(_POLL_S)


@contextlib.contextmanager
def running(
    settings: Settings, launching: Callable[[], object] = lambda: None
) -> Iterator[Serving]:
    """Run the frontend while the context lasts; it is ready on entry.

    It stops before its Triton does, because Triton waits for its clients. Once a stop has begun,
    whatever for, it hears no signal of `stop_on_signals`.

    Args:
        settings: of every part.
        launching: called before its own Triton starts, once nothing else keeps it from serving.

    Raises:
        LaunchError: a part cannot be started; nothing is left running.
    """
    try:
        asyncio.run(places.try_out(settings))
    except StoreRefusedError as error:
        raise LaunchError(str(error)) from error
    _check_door(settings)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_bind(settings.host, settings.port))
        if settings.launches_triton:
            own = installation.loading_file(settings.triton_grpc_port)
            settings = settings.model_copy(update={"loading_file": settings.loading_file or own})
        try:
            app = create_app(settings)  # before the models are loaded, which takes minutes
        except KeysError as error:
            raise LaunchError(f"ARTMANCER_KEYS_FILE: {error}") from error
        triton = None
        if settings.launches_triton:
            triton = stack.enter_context(Supervisor(settings, launching))
        server = _Server(server_config(app, settings))
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True
        )
        # Connections that are closing when this server ends keep no other from the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thread.start()
        stack.callback(_stop, server, thread, settings.drain_s)
        stack.callback(hear_no_more)  # first, whatever ends the context
        while not server.started:
            if not thread.is_alive():
                raise LaunchError("the HTTP server did not start")
            time.sleep(_POLL_S)
        host, port = listener.getsockname()[:2]
        yield Serving(f"http://{f'[{host}]' if ':' in host else host}:{port}", triton, thread)


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return what uvicorn serves the app with, in one event loop."""
    most, backlog = raise_file_limit(settings)
    return uvicorn.Config(
        app,
        http=Connections(settings, most).protocol,
        backlog=backlog,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=_OPEN_STREAMS_S + _CUT_S,
    )


class _Server(uvicorn.Server):
    """Shuts the app down before it waits for open connections, not after.

    The app then closes the store of jobs. That ends the event streams, which would stay open
    otherwise. Half an upload, and an answer that nobody reads, end as those of clients that leave:
    uvicorn alone would cancel them, answer 500 and log faults.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self.lifespan.shutdown()
        cutting = asyncio.get_running_loop().call_later(_OPEN_STREAMS_S, self._cut_connections)
        await super().shutdown(sockets)
        cutting.cancel()

    def _cut_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _check_door(settings: Settings) -> None:
    """Refuse to serve everybody by mistake."""
    if not settings.serves or settings.keys_file is not None:
        return  # it has no work to give to anybody, or only to those with a key
    if settings.reached_from_outside and not settings.allow_anonymous:
        where = (
            f"ARTMANCER_PUBLISHED_AT={settings.published_at}"
            if settings.published_at
            else f"ARTMANCER_HOST={settings.host}"
        )
        raise LaunchError(
            f"{where} lets others than this machine in: set ARTMANCER_KEYS_FILE, for which "
            "`artmancer key new NAME` makes keys, or ARTMANCER_ALLOW_ANONYMOUS=true to serve "
            "everybody who reaches it"
        )


def _bind(host: str, port: int) -> socket.socket:
    """Take the port at once, so that a conflict shows before the models are loaded.

    Nothing listens yet, so clients are refused until the frontend is ready.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        _bind_alone(listener, host, port)
    except OSError as error:
        listener.close()
        raise LaunchError(
            f"cannot listen on {host}:{port} ({error.strerror}): stop what uses it, or set "
            "ARTMANCER_HOST and ARTMANCER_PORT"
        ) from error
    return listener


def _bind_alone(listener: socket.socket, host: str, port: int) -> None:
    """Bind a port that nobody has bound.

    Connections of an earlier server that are closing do not count, which SO_REUSEADDR says. With it
    on both, another server could bind the port as long as nobody listens. Older kernels remember
    it although it is taken back, so it is asked for only where it is needed.
    """
    try:
        listener.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _stop(server: uvicorn.Server, thread: threading.Thread, drain_s: float) -> None:
    server.should_exit = True
    thread.join(_STOP_TIMEOUT_S + drain_s)
