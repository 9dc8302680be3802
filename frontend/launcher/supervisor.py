"""Owns keeping tritonserver running: one start, restarts after faults, one stop."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

import structlog

from frontend.launcher import leftovers, preflight
from frontend.launcher.errors import LaunchError
from frontend.launcher.tritonserver import TritonServer
from frontend.signals import hear_no_more
from frontend.supervision import Rounds, supervised_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.launcher.repository import Model
    from frontend.settings import Settings

WATCH_INTERVAL_S = 0.25
STABLE_AFTER_S = 60.0  # after this time without a fault, restarts are counted from 0 again
MAX_BACKOFF_S = 30.0

log = structlog.get_logger(__name__)


class Supervisor:
    """Starts tritonserver, watches it from a thread, and restarts it after a fault.

    A dead stub counts as a fault of the whole server, and so does one that gives no sign of life.
    Triton never starts a stub again, still calls itself ready, and never answers the requests that
    the stub had. So every fault has one remedy, which also ends every stream: kill the server and
    start it again.

    Args:
        settings: of the server.
        launching: called before the first start, once all that it needs is there.
    """

    def __init__(self, settings: Settings, launching: Callable[[], object] = lambda: None) -> None:
        self._settings = settings
        self._launching = launching
        self._models: list[Model] = []
        self._server: TritonServer | None = None
        self._stopping = threading.Event()
        self._watcher = supervised_thread(
            "triton-watch",
            self._watch,
            lambda: self._stopping.is_set() or self.failure is not None,
        )
        self.failure: LaunchError | None = None
        """Why the supervisor gave up; None if it has not."""

    def __enter__(self) -> Self:
        """Start tritonserver and return once all models are ready.

        Raises:
            LaunchError: tritonserver cannot be started.
        """
        leftovers.remove_stale()
        self._models = preflight.check(self._settings)
        self._launching()
        try:
            self._start()
        except BaseException:
            hear_no_more()
            self._end(graceful=False)
            raise
        self._watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop tritonserver and leave no process and no shared memory behind."""
        self._stopping.set()
        self._watcher.join()
        self._end(graceful=True)

    def _start(self) -> None:
        self._server = TritonServer(self._settings, self._models)
        self._server.wait_ready(self._settings.triton_start_timeout_s, self._stopping)

    def _end(self, *, graceful: bool) -> None:
        if self._server is not None:
            (self._server.stop if graceful else self._server.kill)()
            self._server = None

    def _watch(self) -> None:
        restarts = 0
        fault = self._wait_for_fault()
        while fault is not None:
            self._end(graceful=False)
            if restarts == self._settings.triton_restart_limit:
                problem = f"gave up after {restarts} restarts: {fault}"
                self.failure = LaunchError(problem, log_tail=fault.log_tail)
                return
            restarts += 1
            log.error("triton_restarting", fault=str(fault), restart=restarts)
            if self._stopping.wait(min(2.0 ** (restarts - 1) - 1.0, MAX_BACKOFF_S)):
                return
            try:
                self._start()
            except LaunchError as error:
                fault = error
            except OSError as error:
                fault = LaunchError(f"cannot start tritonserver: {error}")
            else:
                ready_at = time.monotonic()
                fault = self._wait_for_fault()
                # A stub that falls silent at once is noticed only so much later.
                noticed_within_s = self._settings.stub_silence_timeout_s
                if time.monotonic() - ready_at > STABLE_AFTER_S + noticed_within_s:
                    restarts = 0

    def _wait_for_fault(self) -> LaunchError | None:
        """Return the next fault; None once the supervisor has to stop.

        To be kept from looking, for want of a file, is none. Five times in a row end the process.
        """
        assert self._server is not None
        rounds = Rounds("triton-watch")
        while not self._stopping.wait(WATCH_INTERVAL_S):
            with rounds.one():
                if (fault := self._server.fault()) is not None:
                    return fault
        return None
