"""Owns the frontend's knowledge of whether a Triton can run a model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

from frontend.domain.models import ModelState
from frontend.errors import ServingError, TritonDownError, TritonStoppingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from frontend.triton.client import TritonClient
    from frontend.triton.tensors import ModelTensors

log = structlog.get_logger()

State = TypeVar("State", bound=ModelState)


class TritonWatch(Generic[State]):
    """Pings the model itself, because Triton's own health stays good when a model's process dies.

    One error means that Triton is down. Of missed pings it takes two in a row, because a busy
    machine may miss one. Only some errors mean that Triton's requests are lost: a Triton that
    stops refuses pings but still finishes its requests.

    Args:
        client: the connection to Triton.
        table: the tensors that the model should have.
        cancel: cancels a job of the model; cancelling "" is a ping.
        timeout_s: seconds until a ping counts as missed.
    """

    def __init__(
        self,
        client: TritonClient,
        table: ModelTensors,
        cancel: Callable[[str], Awaitable[State]],
        timeout_s: float,
    ) -> None:
        self.client = client
        self._table = table
        self._cancel = cancel
        self._timeout_s = timeout_s
        self._missed = 0
        self._state: State | None = None
        self._error: ServingError = TritonDownError("Triton has not answered yet")

    @property
    def state(self) -> State | None:
        """The model's last answer; None while Triton is down."""
        return self._state

    @property
    def reason(self) -> str:
        """Why Triton is down, or was the last time."""
        return self._error.detail

    @property
    def requests_lost(self) -> bool:
        """Whether Triton will never answer the requests that it has; `reason` gives the reason."""
        down = isinstance(self._error, TritonDownError)
        stopping = isinstance(self._error, TritonStoppingError)
        return self._state is None and down and not stopping

    def require(self) -> State:
        """Return the model's last answer.

        Raises:
            TritonDownError: Triton is down; the detail gives the reason.
        """
        if self._state is None:
            raise TritonDownError(self.reason)
        return self._state

    def mark_down(self, error: ServingError) -> None:
        """Consider Triton down until it answers again."""
        if self._state is not None:
            log.warning("triton_down", model=self._table.model, reason=error.detail)
        self._state, self._error = None, error

    async def ping(self) -> None:
        """Ping once and update `state`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                state = await self._ask()
        except TimeoutError:
            self._missed += 1
            if self._missed > 1:
                self.mark_down(TritonDownError("Triton does not answer"))
        except ServingError as error:
            self._missed = 0
            self.mark_down(error)
        else:
            if self._state is None:
                log.info("triton_ready", model=self._table.model, bundle=state.bundle)
            self._missed, self._state = 0, state

    async def _ask(self) -> State:
        # Compared again, because a Triton that returns may serve another repository.
        if self._state is None and (found := await self.client.mismatches(self._table)):
            raise TritonDownError(
                f"the loaded {self._table.model} is not the promised one: {found[0]}"
            )
        return await self._cancel("")
