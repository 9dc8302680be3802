"""Owns the frontend's opinion whether Triton can run edits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from frontend.errors import ServingError, TritonAwayError

if TYPE_CHECKING:
    from frontend.domain import ModelState
    from frontend.triton.client import TritonClient

log = structlog.get_logger()


class TritonWatch:
    """Asks the model itself, because Triton's own health stays good when a model's process dies.

    An error is believed at once; of missing answers, only the second in a row, since a busy
    machine may miss one.

    Args:
        client: how to ask.
        timeout_s: how long an answer may take.
    """

    def __init__(self, client: TritonClient, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._missed = 0
        self._state: ModelState | None = None
        self._reason = "Triton has not answered yet"

    @property
    def state(self) -> ModelState | None:
        """The model's last answer; None while Triton is away."""
        return self._state

    @property
    def reason(self) -> str:
        """Why Triton is away, or last was."""
        return self._reason

    def require(self) -> ModelState:
        """Return the model's last answer.

        Raises:
            TritonAwayError: Triton is away; the detail says why.
        """
        if self._state is None:
            raise TritonAwayError(self._reason)
        return self._state

    def lose(self, reason: str) -> None:
        """Hold Triton for away until it answers again."""
        if self._state is not None:
            log.warning("triton_lost", reason=reason)
        self._state, self._reason = None, reason

    async def beat(self) -> None:
        """Ask once and update `state`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                state = await self._ask()
        except TimeoutError:
            self._missed += 1
            if self._missed > 1:
                self.lose("Triton does not answer")
        except ServingError as error:
            self._missed = 0
            self.lose(error.detail)
        else:
            if self._state is None:
                log.info("triton_ready", bundle=state.bundle, adapters=sorted(state.adapters))
            self._missed, self._state = 0, state

    async def _ask(self) -> ModelState:
        # A Triton that returns may serve another repository.
        if self._state is None and (found := await self._client.mismatches()):
            raise TritonAwayError(f"the loaded image_edit is not the promised one: {found[0]}")
        return await self._client.cancel("")
