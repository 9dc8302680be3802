"""Owns the frontend's opinion whether Triton can run a model."""

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
    """Asks the model itself, because Triton's own health stays good when a model's process dies.

    An error is believed at once; of missing answers, only the second in a row, since a busy
    machine may miss one. No error but a lost Triton's says anything of the requests that the
    model has already: a Triton that is told to stop refuses pings until they are answered.

    Args:
        client: how to ask.
        table: the tensors that the model should have.
        cancel: how `client` cancels a job of the model; cancelling "" is a ping.
        timeout_s: how long an answer may take.
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
        """The model's last answer; None while Triton is away."""
        return self._state

    @property
    def reason(self) -> str:
        """Why Triton is away, or last was."""
        return self._error.detail

    @property
    def requests_lost(self) -> bool:
        """Whether the requests that Triton has will not be answered; `reason` says why."""
        away = isinstance(self._error, TritonDownError)
        leaving = isinstance(self._error, TritonStoppingError)
        return self._state is None and away and not leaving

    def require(self) -> State:
        """Return the model's last answer.

        Raises:
            TritonDownError: Triton is away; the detail says why.
        """
        if self._state is None:
            raise TritonDownError(self.reason)
        return self._state

    def mark_down(self, error: ServingError) -> None:
        """Hold Triton for away until it answers again."""
        if self._state is not None:
            log.warning("triton_down", model=self._table.model, reason=error.detail)
        self._state, self._error = None, error

    async def ping(self) -> None:
        """Ask once and update `state`."""
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
        # A Triton that returns may serve another repository.
        if self._state is None and (found := await self.client.mismatches(self._table)):
            raise TritonDownError(
                f"the loaded {self._table.model} is not the promised one: {found[0]}"
            )
        return await self._cancel("")
