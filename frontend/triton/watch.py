"""Owns the frontend's knowledge of whether a Triton can run a model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

from frontend import loop_time
from frontend.domain.models import ModelState
from frontend.errors import (
    ServingError,
    TritonDownError,
    TritonSilentError,
    TritonStoppingError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from frontend.triton.client import TritonClient
    from frontend.triton.tensors import ModelTensors

log = structlog.get_logger()

# Pings of a model that wait for their answers. If its process died, some never come, and Triton
# answers the next one by an error.
MAX_QUESTIONS = 3
NOT_YET = "Triton has not answered yet"

State = TypeVar("State", bound=ModelState)


class TritonWatch(Generic[State]):
    """Pings the model itself, because Triton's own health stays good when a model's process dies.

    One error means that Triton is down. Of missed pings it takes two in a row, because a busy
    machine may miss one; one that the model answers meanwhile, to whomever, is not missed. The
    time in which this process itself stood still does not count.

    Only evidence means that Triton's requests are lost: a broken connection, or Triton's own word
    that the model's process is dead. Silence is none, and a Triton that stops refuses pings but
    still finishes its requests.

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
        # Not cut when a ping is missed: a late answer counts, and cutting calls can crash
        # Triton 2.51.
        self._questions: list[asyncio.Task[State]] = []
        self._heard = False  # whether the model has answered anybody since the last ping began
        self._state: State | None = None
        self._error: ServingError = TritonSilentError(NOT_YET)
        self._logged: str | None = None  # what clients were told, when the log was last told why

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
        in_doubt = isinstance(self._error, TritonSilentError | TritonStoppingError)
        return self._state is None and down and not in_doubt

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
        if error.detail != self._logged:
            reason = error.reason if isinstance(error, TritonDownError) else error.detail
            log.warning("triton_down", **self._names, reason=reason)
        self._state, self._error, self._logged = None, error, error.detail

    def note_answer(self) -> None:
        """Take note that the model has answered a request, which proves that it lives."""
        self._heard = True

    def close(self) -> None:
        """Drop the questions that have not been answered."""
        for question in self._questions:
            question.cancel()

    async def ping(self) -> None:
        """Ping once and update `state`."""
        self._heard = False
        questions = self._questions
        questions.append(asyncio.create_task(self._ask()))
        # Else asyncio complains of an error that came after a better answer.
        questions[-1].add_done_callback(lambda task: task.cancelled() or task.exception())
        if len(questions) > MAX_QUESTIONS:
            questions.pop(0).cancel()
        try:
            async with loop_time.timeout(self._timeout_s):
                await asyncio.wait(questions, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            self._missed = 0 if self._heard else self._missed + 1
            if self._missed > 1:
                self.mark_down(TritonSilentError("Triton does not answer"))
            return
        self._missed = 0
        newest = max(number for number, each in enumerate(questions) if each.done())
        for older in questions[:newest]:
            older.cancel()
        self._questions = questions[newest + 1 :]
        try:
            state = questions[newest].result()
        except ServingError as error:
            self.mark_down(error)
        else:
            if self._state is None:
                log.info("triton_ready", **self._names, bundle=state.bundle)
            self._state, self._logged = state, None

    @property
    def _names(self) -> dict[str, str]:
        return {"model": self._table.model, "address": self.client.url}

    async def _ask(self) -> State:
        # Compared again, because a Triton that returns may serve another repository.
        if self._state is None and (found := await self.client.mismatches(self._table)):
            raise TritonDownError(
                f"the loaded {self._table.model} is not the promised one: {found[0]}"
            )
        return await self._cancel("")
