"""Owns the way of a mask request through its bounds and Triton to its answer."""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import structlog

from frontend.errors import (
    BackendError,
    ClosingError,
    ImageNotFoundError,
    InvalidInputError,
    MaskCancelledError,
    ModelCancelledError,
    NotCachedError,
    ServingError,
    TritonDownError,
    UnavailableError,
)
from frontend.triton.loading import outage_error
from frontend.triton.mask_tensors import in_field_names, mask_result

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from frontend.domain.masks import MaskPrompts, MaskResult, Picture
    from frontend.domain.models import MaskModelState
    from frontend.masks.image_store import ImageStore
    from frontend.settings import Settings
    from frontend.triton.call import InferCall
    from frontend.triton.watch import TritonWatch

log = structlog.get_logger()

# The model's words for a picture in which it has found nothing that fits.
NOTHING_FOUND = "FastSAM did not generate any masks"
# A cancel may overtake its request on the way to the model, and is sent again after so long.
CANCEL_REPEAT_S = 0.02
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(eq=False)
class Ticket:
    """A mask request that has not been answered.

    Attributes:
        request_id: what cancels name.
        ready: all that was sent with it has been read, and it may start.
        running: it may ask the model.
        end_reason: what ends it before its time, once that is known.
        watch: the Triton that it asks.
        call_id: its name at the model, a new one for each call.
        call: what it waits for at the model.
        turn: set once it runs or is stopped.
        ended: set at its end.
    """

    request_id: str
    ready: bool = False
    running: bool = False
    end_reason: ServingError | None = None
    watch: TritonWatch[MaskModelState] | None = None
    call_id: str = ""
    call: InferCall | None = None
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class MaskService:
    """Gives the model a few requests at a time, and each picture once.

    The model keeps what its network found in a picture, and this service the picture: so a
    picture that was accepted before is asked for by its id, and sent again only where the model
    has forgotten it.

    An asynchronous context manager: Triton is watched only inside it, and all requests have
    ended after it.

    Args:
        settings: bounds and times.
        store: where accepted pictures are kept.
        watches: the Tritons that make masks, all of the same network; at least one.
    """

    def __init__(
        self,
        settings: Settings,
        store: ImageStore,
        watches: Sequence[TritonWatch[MaskModelState]],
    ) -> None:
        self._settings = settings
        self._store = store
        self._watches = watches
        self._most_running = settings.max_masks_in_flight * len(watches)
        self._clock = asyncio.get_running_loop().time
        # In the order of their arrival.
        self._live: dict[str, Ticket] = {}
        self._closing = False

    async def __aenter__(self) -> Self:
        await self._ping_all()
        self._supervisor = asyncio.create_task(self._supervise())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._supervisor.cancel()
        tickets = list(self._live.values())
        for ticket in tickets:
            self._mark(ticket, ClosingError())
        # Triton does not stop while a request runs.
        grace_s = self._settings.cancel_timeout_s
        await asyncio.gather(*(self._end_early(ticket, grace_s) for ticket in tickets))
        await asyncio.gather(self._supervisor, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """Number of requests that wait to start."""
        return len(self._live) - self.running

    @property
    def running(self) -> int:
        """Number of requests that the model may have."""
        return sum(ticket.running for ticket in self._live.values())

    def require(self) -> list[MaskModelState]:
        """Return the last answers of the models that can make masks now.

        Raises:
            TritonDownError: there is none; the detail says why.
        """
        return [watch.require() for watch in self._ready()]

    @contextlib.contextmanager
    def admitted(self, request_id: str | None) -> Iterator[Ticket]:
        """Hold a place for one request, from before its pictures are read until its answer.

        Args:
            request_id: as the client chose it; None: one is made.

        Raises:
            UnavailableError: Triton is away, or there is no place.
            InvalidInputError: another request of that id has not been answered.
        """
        self.require()
        if self._closing:
            raise ClosingError()
        if len(self._live) >= self._most_running + self._settings.max_masks_waiting:
            raise UnavailableError("Too many mask requests wait already")
        ticket = Ticket(request_id or str(uuid.uuid4()))
        if ticket.request_id in self._live:
            raise InvalidInputError(
                f"request_id: {ticket.request_id} is that of a request which has not been answered"
            )
        self._live[ticket.request_id] = ticket
        try:
            yield ticket
        finally:
            del self._live[ticket.request_id]
            ticket.ended.set()
            self._start_waiting()

    async def find(self, ticket: Ticket, prompts: MaskPrompts, image: Picture | str) -> MaskResult:
        """Have the model make a mask.

        Args:
            ticket: the request's, from `admitted`.
            prompts: what to find.
            image: where: a picture, or the image_id of an earlier one.

        Raises:
            ServingError: no mask; the details name fields of the REST request.
        """
        image_id = image if isinstance(image, str) else image.image_id
        if not _IMAGE_ID.fullmatch(image_id):
            raise ImageNotFoundError(image_id)
        ticket.ready = True
        self._start_waiting()
        await ticket.turn.wait()
        held = self._store.get(image_id)
        picture = held if isinstance(image, str) else image
        try:
            result = await self._find(ticket, prompts, image_id, picture, accepted=held is not None)
        except InvalidInputError as error:
            if picture and error.detail == NOTHING_FOUND:
                self._store.put(picture)
            raise
        if picture:
            self._store.put(picture)
        log.info("mask_found", request_id=ticket.request_id, cached=result.cached)
        return result

    def cancel(self, request_id: str) -> Callable[[], Coroutine[Any, Any, None]]:
        """Make sure that the request of that id, if there is one, ends without a mask.

        Returns:
            What has the model stop the request. Answer the client before you call it.
        """
        if ticket := self._live.get(request_id):
            self._mark(ticket, MaskCancelledError(request_id))

        async def finish() -> None:
            # Looked up again: it may have ended meanwhile.
            if ticket := self._live.get(request_id):
                await self._end_early(ticket, self._settings.cancel_grace_s)

        return finish

    # --- waiting ---

    def _start_waiting(self) -> None:
        """Let requests run while there may be more."""
        free = self._most_running - self.running
        waiting = [each for each in self._live.values() if each.ready and not each.running]
        for ticket in waiting[: max(free, 0)]:
            ticket.running = True
            ticket.turn.set()

    def _mark(self, ticket: Ticket, reason: ServingError) -> None:
        ticket.end_reason = ticket.end_reason or reason
        ticket.turn.set()

    # --- with Triton ---

    async def _find(
        self,
        ticket: Ticket,
        prompts: MaskPrompts,
        image_id: str,
        picture: Picture | None,
        *,
        accepted: bool,
    ) -> MaskResult:
        """Ask by id where the model may know the picture, and send it where it does not."""
        deadline = self._clock() + self._settings.mask_timeout_s
        # What is not held here may still be known to the model.
        if accepted or picture is None:
            with contextlib.suppress(NotCachedError):
                return await self._ask(ticket, prompts, image_id, image_id, deadline)
        if picture is None:
            raise ImageNotFoundError(image_id)
        return await self._ask(ticket, prompts, image_id, picture.data, deadline)

    async def _ask(
        self,
        ticket: Ticket,
        prompts: MaskPrompts,
        image_id: str,
        image: bytes | str,
        deadline: float,
    ) -> MaskResult:
        """Make one call to the model that may know the picture."""
        if ticket.end_reason:
            raise ticket.end_reason
        ticket.call_id = str(uuid.uuid4())
        ticket.watch = watch = self._watch_for(image_id)
        ticket.call = watch.client.mask(ticket.call_id, prompts, image, deadline - self._clock())
        try:
            result = mask_result(await ticket.call.response())
        except ModelCancelledError:
            raise ticket.end_reason or MaskCancelledError(ticket.request_id) from None
        except InvalidInputError as error:
            raise InvalidInputError(in_field_names(error.detail)) from None
        except TritonDownError as error:
            watch.mark_down(error)
            raise
        except BackendError as error:
            raise BackendError(f"Mask generation failed: {error.detail}") from None
        finally:
            ticket.call = None
        if ticket.end_reason:
            raise ticket.end_reason
        return result

    async def _end_early(self, ticket: Ticket, grace_s: float) -> None:
        """End a marked request: ask the model, and cut the call only where that does not help."""
        try:
            async with asyncio.timeout(self._settings.cancel_timeout_s):
                while ticket.call and ticket.watch:
                    if (await ticket.watch.client.cancel_mask(ticket.call_id)).cancelled:
                        break
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(CANCEL_REPEAT_S):
                            await ticket.ended.wait()
            async with asyncio.timeout(grace_s):
                await ticket.ended.wait()
        except (TimeoutError, ServingError) as error:
            log.warning("cancel_unanswered", request_id=ticket.request_id, reason=repr(error))
            if ticket.call:
                ticket.call.cut(ticket.end_reason or ClosingError())

    def _ready(self) -> list[TritonWatch[MaskModelState]]:
        """The Tritons that can make masks now.

        Raises:
            TritonDownError: there is none; the detail says why.
        """
        states = [(watch, watch.state) for watch in self._watches]
        if ready := [watch for watch, state in states if state and state.network_answers]:
            return ready
        if any(state for _, state in states):
            raise TritonDownError("the mask network does not answer")
        raise outage_error(self._watches[0].reason, self._settings.loading_file)

    def _watch_for(self, image_id: str) -> TritonWatch[MaskModelState]:
        """One Triton for each picture while none comes or goes: there its features are cached."""
        ready = self._ready()
        return ready[int(image_id[:8], 16) % len(ready)]

    # --- faults ---

    async def _ping_all(self) -> None:
        await asyncio.gather(*(watch.ping() for watch in self._watches))

    async def _supervise(self) -> None:
        """Ask for Triton's health for ever, and end the requests that would not end themselves."""
        while True:
            await asyncio.sleep(self._settings.ping_interval_s)
            try:
                await self._ping_all()
                self._store.expire()
                for ticket in self._live.values():
                    if ticket.call and ticket.watch and ticket.watch.requests_lost:
                        ticket.call.cut(TritonDownError(ticket.watch.reason))
            except Exception:
                log.exception("supervision_failed")
