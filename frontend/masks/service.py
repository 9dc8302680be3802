"""Owns the way of a mask request through the bounds and Triton to its answer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import structlog

from frontend import loop_time
from frontend.domain.masks import MAX_ID_CHARS
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
from frontend.masks.early_cancels import EarlyCancels, Name
from frontend.pictures.aspects import stretched
from frontend.pictures.codecs import png_size
from frontend.shares import Holdings, Rotation
from frontend.supervision import Rounds, supervised_task
from frontend.triton.mask_tensors import in_field_names, mask_result
from frontend.waiting import set_within
from model_kit.raster import size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from frontend.domain.masks import MaskPrompts, MaskResult, Picture
    from frontend.domain.models import MaskModelState
    from frontend.jobs.sql_store import SqlStore
    from frontend.masks.image_store import ImageStore
    from frontend.masks.pictures import Pictures
    from frontend.masks.tritons import MaskTritons
    from frontend.pictures.workers import ImageWorkers
    from frontend.settings import Settings
    from frontend.triton.call import InferCall
    from frontend.triton.watch import TritonWatch

log = structlog.get_logger()

# How the model's text begins if nothing in the picture fits the prompts; a reason follows.
NOTHING_FOUND = "FastSAM did not generate any masks"
# A cancel may overtake its request on the way to the model, so it is repeated after this time.
CANCEL_REPEAT_S = 0.02
_CANCELS = "mask-cancel:"  # what processes tell each other, with owner and request_id
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(eq=False)
class Ticket:
    """A mask request that has not been answered."""

    owner: str
    """Whose it is."""
    request_id: str
    """The name by which its owner cancels it."""
    ready: bool = False
    """Whether all that the client sent has been read, so that it may start."""
    running: bool = False
    """Whether it may ask the model."""
    end_reason: ServingError | None = None
    """Why it ends early, once that is known."""
    watch: TritonWatch[MaskModelState] | None = None
    """The Triton that it asks."""
    call_id: str = ""
    """Its name at the model; each call has a new one."""
    call: InferCall | None = None
    """The call to the model that it waits for."""
    asking: asyncio.Task[MaskResult] | None = None
    """Makes its calls; runs until the model has answered, even if its client disconnects."""
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it may run, or has to end."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at its end, once the model has ended too."""


class MaskService:
    """Gives the model a few requests at a time, and each picture once.

    The model caches what its network found in a picture, and the store keeps the picture. So
    it sends a known picture's id first, and the picture again only if the model has forgotten it.

    An asynchronous context manager: the Tritons are pinged only inside it, and all requests have
    ended after it.

    Args:
        settings: bounds and times.
        cache: remembers the names by which models know pictures.
        pictures: where accepted pictures are kept.
        store: tells the other processes whom to cancel.
        tritons: those that make masks, all with the same bundle.
        images: read what has to be sent.
    """

    def __init__(
        self,
        settings: Settings,
        cache: ImageStore,
        pictures: Pictures,
        store: SqlStore,
        tritons: MaskTritons,
        images: ImageWorkers,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._pictures = pictures
        self._store = store
        store.hear(_CANCELS, self._hear_cancel)
        self._images = images
        self._tritons = tritons
        self._places = Holdings("mask requests", self._most, settings.owner_fraction)
        self._rotation = Rotation()
        # By owner and image_id: who sends a picture that this owner's requests have not named yet.
        self._first: dict[tuple[str, str], Ticket] = {}
        self._clock = asyncio.get_running_loop().time
        # By owner and request_id, in the order of their arrival.
        self._live: dict[Name, Ticket] = {}
        # Each has the model end a request whose client has left, or has cancelled it elsewhere.
        self._leaving: dict[asyncio.Task[None], Ticket] = {}
        self._early_cancels = EarlyCancels(self._clock)
        self._closing = False

    async def __aenter__(self) -> Self:
        self._supervisor = supervised_task("masks", self._supervise())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._supervisor.cancel()
        tickets = list(self._live.values())
        for ticket in tickets:
            self._mark(ticket, ClosingError())
        # Triton does not stop while a request runs. Those whose clients have left get no longer.
        grace_s = self._settings.cancel_timeout_s
        ending = {*tickets, *self._leaving.values()}
        await asyncio.gather(*(self._end_early(ticket, grace_s) for ticket in ending))
        left = [self._supervisor, *self._leaving]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """Number of requests that wait to start."""
        return len(self._live) - self.running

    @property
    def running(self) -> int:
        """Number of requests that the model may have."""
        return sum(ticket.running for ticket in self._live.values())

    @property
    def tritons(self) -> int:
        """Number of Tritons that are asked, ready or not."""
        return len(self._tritons)

    def require(self) -> list[MaskModelState]:
        """Return the last answers of the models that can make masks now.

        Raises:
            TritonDownError: no model can; the detail gives the reason.
        """
        return self._tritons.require()

    @contextlib.contextmanager
    def admitted(self, owner: str, request_id: str | None) -> Iterator[Ticket]:
        """Hold a place for one request, from before its pictures are read until its answer.

        Args:
            owner: whose it is.
            request_id: the client's name for it; None: a new one is made.

        Raises:
            UnavailableError: Triton is down, or there is no place.
            TooMuchError: this owner has too many.
            InvalidInputError: another request of that id has not been answered.
            MaskCancelledError: its cancel came before it.
        """
        if request_id and self._early_cancels.take((owner, request_id)):
            raise MaskCancelledError(request_id)
        self.require()
        if self._closing:
            raise ClosingError()
        ticket = Ticket(owner, request_id or str(uuid.uuid4()))
        name = owner, ticket.request_id
        if name in self._live:
            raise InvalidInputError(
                f"request_id: {ticket.request_id} is that of a request which has not been answered"
            )
        with self._places.held(owner):
            self._live[name] = ticket
            try:
                yield ticket
            finally:
                del self._live[name]
                self._early_cancels.note_answer(name)
                # Not kept: a call that failed holds its frames, and with them the picture and this
                # ticket. Until the garbage is collected that is 100 MB for a large picture.
                asking, ticket.asking = ticket.asking, None
                if asking:
                    asking.add_done_callback(lambda _: ticket.ended.set())
                else:
                    ticket.ended.set()
                self._start_waiting()

    async def find(
        self,
        ticket: Ticket,
        prompts: MaskPrompts,
        image: Picture | str,
        mask: bytes | None = None,
    ) -> MaskResult:
        """Have the model make a mask.

        If this is cancelled, because the client has left, the request ends as if the client had
        cancelled it. The model is asked to end it too, in the background.

        Args:
            ticket: the request's, from `admitted`.
            prompts: what to find.
            image: the picture, or the image_id of an earlier one.
            mask: the file of a rough mask, which becomes part of the prompts.

        Raises:
            ServingError: there is no mask; the detail names fields of the REST request.
        """
        image_id = image if isinstance(image, str) else image.image_id
        if not _IMAGE_ID.fullmatch(image_id):
            raise ImageNotFoundError(image_id)
        async with contextlib.AsyncExitStack() as held:
            if mask:
                rough = await held.enter_async_context(self._images.rough_mask(ticket.owner, mask))
                prompts = replace(prompts, mask=rough)
            own = self._cache.model_name(ticket.owner, image_id)
            cached = self._pictures.cached(ticket.owner, image_id)
            picture = cached if isinstance(image, str) else image
            if picture is None and own:
                # The model is asked by name first.
                self._pictures.use(ticket.owner, image_id)
            elif picture is None:
                # A model may know it, but perhaps this owner has not sent it.
                picture = await self._stored(ticket, image_id)
            # Read before the request has a place at the model, which a slow file must not hold.
            pixels = None
            if picture and not own:
                pixels = await held.enter_async_context(self._images.shown(ticket.owner, picture))
            ticket.ready = True
            self._start_waiting()
            await ticket.turn.wait()
            accept = None
            if not isinstance(image, str):
                accept = await held.enter_async_context(self._pictures.writing(ticket.owner, image))
            try:
                result = await self._find(ticket, prompts, image_id, picture, pixels)
            except InvalidInputError as error:
                if accept and error.detail.startswith(NOTHING_FOUND):
                    await accept()
                raise
            finally:
                self._leave_model(ticket)
            if accept:
                await accept()
        if ticket.end_reason:  # a cancel came while the picture was kept
            raise ticket.end_reason
        log.info("mask_found", request_id=ticket.request_id, cached=result.cached)
        return replace(result, warnings=_warnings(prompts, result))

    def answered_lately(self, owner: str, request_id: str) -> bool:
        """Return whether a request of that id ended seconds ago, and none is here now."""
        name = owner, request_id
        return name not in self._live and self._early_cancels.answered(name)

    def cancel(self, owner: str, request_id: str) -> Callable[[], Coroutine[Any, Any, None]]:
        """Make sure that the owner's request of that id, if there is one, ends without a mask.

        A request on its way here counts too, if it comes within seconds. One that another process
        has, or gets, ends if the store can tell that process.

        Returns:
            What has the model stop the request. Answer the client before you call it.
        """
        name = owner, request_id
        here = self._cancel_here(name)

        async def finish() -> None:
            # Looked up again: it may have ended meanwhile.
            if ticket := self._live.get(name):
                await self._end_early(ticket, self._settings.cancel_grace_s)
            elif not here and len(request_id) <= MAX_ID_CHARS:
                with contextlib.suppress(UnavailableError):
                    await self._store.tell(_CANCELS, json.dumps(name))

        return finish

    def _cancel_here(self, name: Name) -> bool:
        """Mark the request of that name, or note the cancel; return whether it is here."""
        if ticket := self._live.get(name):
            self._mark(ticket, MaskCancelledError(ticket.request_id))
            return True
        self._early_cancels.note_cancel(name)
        return False

    def _hear_cancel(self, text: str) -> None:
        """End a request that was cancelled at another process."""
        owner, request_id = json.loads(text)
        if self._cancel_here((owner, request_id)):
            self._end_in_background(self._live[owner, request_id])

    async def _stored(self, ticket: Ticket, image_id: str) -> Picture:
        """Return the picture that some process has kept for the ticket's owner."""
        if (picture := await self._pictures.find(ticket.owner, image_id)) is None:
            raise ImageNotFoundError(image_id)
        return picture

    # --- waiting ---

    @property
    def _most_running(self) -> int:
        # Where none is ready, who waits has to run to be told so.
        return self._settings.max_masks_in_flight * max(1, self._tritons.ready)

    @property
    def _most(self) -> int:
        return self._most_running + self._settings.max_masks_waiting

    def _start_waiting(self) -> None:
        """Let waiting requests run while there is room, the owners in turn."""
        free = self._most_running - self.running
        waiting = [each for each in self._live.values() if each.ready and not each.running]
        while free > 0 and waiting:
            owner = self._rotation.next(each.owner for each in waiting)
            self._rotation.note(owner)
            ticket = next(each for each in waiting if each.owner == owner)
            waiting.remove(ticket)
            free -= 1
            ticket.running = True
            ticket.turn.set()

    def _leave_model(self, ticket: Ticket) -> None:
        """Give the place at the model to the next one; what is left to do needs only the store."""
        ticket.ready = ticket.running = False
        self._start_waiting()

    def _mark(self, ticket: Ticket, reason: ServingError) -> None:
        ticket.end_reason = ticket.end_reason or reason
        ticket.turn.set()

    def _leave(self, ticket: Ticket) -> None:
        """End the request of a client that has left; do not wait for the model."""
        self._mark(ticket, MaskCancelledError(ticket.request_id))
        self._end_in_background(ticket)

    def _end_in_background(self, ticket: Ticket) -> None:
        leaving = asyncio.create_task(self._end_unheard(ticket))
        self._leaving[leaving] = ticket
        leaving.add_done_callback(self._leaving.pop)

    # --- with Triton ---

    async def _find(
        self,
        ticket: Ticket,
        prompts: MaskPrompts,
        image_id: str,
        picture: Picture | None,
        pixels: bytes | None,
    ) -> MaskResult:
        """Ask by name if the model may know the picture; send it if the model does not.

        The model names a picture by its pixels, and clients by its file.
        """
        deadline = self._clock() + self._settings.mask_timeout_s
        # The model may still know a picture that is not held here.
        name = self._cache.model_name(ticket.owner, image_id)
        if name and pixels is None:
            with contextlib.suppress(NotCachedError):
                result = await self._ask(ticket, prompts, image_id, name, deadline)
                return replace(result, image_id=image_id)
        if picture is None:
            picture = await self._stored(ticket, image_id)
        async with contextlib.AsyncExitStack() as held:
            held.enter_context(self._sending(ticket, image_id))
            if pixels is None:
                shown = self._images.shown(ticket.owner, picture, forgotten=True)
                pixels = await held.enter_async_context(shown)
            try:
                result = await self._ask(ticket, prompts, image_id, pixels, deadline)
            except InvalidInputError as error:
                if error.detail.startswith(NOTHING_FOUND):
                    # The model has the picture, though its answer is no mask and so has no name.
                    digest = await asyncio.to_thread(hashlib.sha256, pixels)
                    self._cache.name(ticket.owner, image_id, digest.hexdigest())
                raise
            cached = result.cached
            if name is None:
                # What the model knew from another owner is not this one's to know: of an owner's
                # requests on a new picture the first is the one that found it.
                first = self._first.get((ticket.owner, image_id))
                known = self._cache.model_name(ticket.owner, image_id) is not None
                cached = first is not ticket and (known or first is not None)
        self._cache.name(ticket.owner, image_id, result.image_id)
        return replace(result, image_id=image_id, cached=cached)

    @contextlib.contextmanager
    def _sending(self, ticket: Ticket, image_id: str) -> Iterator[None]:
        """Note who sends a picture of its owner first, until that has its answer."""
        key = ticket.owner, image_id
        self._first.setdefault(key, ticket)
        try:
            yield
        finally:
            if self._first.get(key) is ticket:
                del self._first[key]

    async def _ask(
        self,
        ticket: Ticket,
        prompts: MaskPrompts,
        image_id: str,
        image: bytes | str,
        deadline: float,
    ) -> MaskResult:
        """Make one call, to the Triton that may know the picture.

        Args:
            ticket: the request's.
            prompts: what to find.
            image_id: the clients' name of the picture; it decides which Triton is asked.
            image: the picture's pixels, or the model's name of it.
            deadline: when the call fails, by the loop's clock.
        """
        ticket.asking = asyncio.create_task(self._call(ticket, prompts, image_id, image, deadline))
        try:
            # The call itself must not be cancelled: cut calls can crash Triton, see `Call.cut`.
            return await asyncio.shield(ticket.asking)
        except asyncio.CancelledError:
            self._leave(ticket)
            raise

    async def _call(
        self,
        ticket: Ticket,
        prompts: MaskPrompts,
        image_id: str,
        image: bytes | str,
        deadline: float,
    ) -> MaskResult:
        if ticket.end_reason:
            raise ticket.end_reason
        ticket.call_id = str(uuid.uuid4())
        timeout_s = deadline - self._clock()
        with self._tritons.having(image_id) as watch:
            ticket.watch = watch
            ticket.call = watch.client.mask(ticket.call_id, prompts, image, timeout_s)
            try:
                response = await ticket.call.response()
                watch.note_answer()
                result = mask_result(response)
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
        """End a marked request: ask the model first, and cut the call only if that fails."""
        try:
            async with loop_time.timeout(self._settings.cancel_timeout_s):
                while ticket.call and ticket.watch:
                    if (await ticket.watch.client.cancel_mask(ticket.call_id)).cancelled:
                        break
                    await set_within(ticket.ended, CANCEL_REPEAT_S)
            async with loop_time.timeout(grace_s):
                await ticket.ended.wait()
        except (TimeoutError, ServingError) as error:
            if ticket.call:  # else no model has it, and something here is slow
                log.warning("cancel_unanswered", request_id=ticket.request_id, reason=repr(error))
                ticket.call.cut(ticket.end_reason or ClosingError())

    async def _end_unheard(self, ticket: Ticket) -> None:
        """End a marked request whose answer nobody waits for."""
        await self._end_early(ticket, self._settings.cancel_grace_s)
        await ticket.ended.wait()

    # --- faults ---

    async def _supervise(self) -> None:
        """Ping Triton for ever, and end the requests that would not end by themselves."""
        rounds = Rounds("masks")
        while True:
            await asyncio.sleep(self._settings.ping_interval_s)
            with rounds.one():
                await self._tritons.ping()
                self._places.resize(self._most)
                self._start_waiting()
                self._cache.expire()
                for ticket in self._live.values():
                    if ticket.call and ticket.watch and ticket.watch.requests_lost:
                        ticket.call.cut(TritonDownError(ticket.watch.reason))


def _warnings(prompts: MaskPrompts, result: MaskResult) -> tuple[str, ...]:
    """Return what is doubtful in a rough mask, if it is the prompt that counts."""
    if prompts.mask is None or prompts.points or prompts.bbox:
        return ()
    # The answer has the picture's size, also where the picture is only named.
    return tuple(stretched("mask", size_of(prompts.mask), png_size(result.mask)))
