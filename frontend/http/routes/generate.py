"""Owns /api/generate: submitting an edit, following it, fetching its result, cancelling it."""

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.background import BackgroundTask
from starlette.types import Receive, Scope, Send

from frontend.domain.edits import EditParams, Size
from frontend.domain.jobs import MAX_NUMBER, JobEvent, JobStatus
from frontend.domain.owners import Owner
from frontend.errors import (
    AccessError,
    ClosingError,
    InvalidInputError,
    JobNotFoundError,
    StoreAwayError,
)
from frontend.http import sse
from frontend.http.access import key_name
from frontend.http.answer_limit import Stored, StoredAnswer
from frontend.http.dependencies import (
    KEY,
    NO_RESULT,
    REFUSALS,
    Finished,
    RequestOwner,
    Services,
    TaskId,
)
from frontend.http.json_route import JsonRoute
from frontend.http.safe_headers import private_for
from frontend.http.schemas.edits import (
    GenerationRequest,
    GenerationResult,
    StreamEvent,
    StreamToken,
    TaskCancelled,
    TaskList,
    TaskQueued,
    TaskStatus,
    listed_task,
    result_frame,
    stream_event,
    task_status,
    without_debug,
)
from frontend.jobs.store import Entry
from frontend.jobs.store import Key as JobKey
from frontend.jobs.submissions import Submitted
from frontend.keys import TOKEN_S, KeysError
from frontend.pictures.aspects import stretched
from frontend.pictures.regions import check_region
from frontend.pictures.workers import EditPictures
from frontend.shares import Holdings
from model_kit.raster import size_of
from model_kit.sizes import answer_size

# Small, so that people can type a drawn seed again.
DRAWN_SEEDS = 2**32
MAX_PAGE = 100

Key = Annotated[
    str,
    Header(
        description="Chosen by the client, up to 255 characters. A request that is sent again "
        "with the same key and body is the same job."
    ),
]

router = APIRouter(
    prefix="/api/generate",
    tags=["generation"],
    dependencies=KEY,
    responses=REFUSALS,
    route_class=JsonRoute,
)


@router.post("", summary="Submit an edit")
async def generate(
    request: GenerationRequest,
    services: Services,
    http: Request,
    owner: RequestOwner,
    idempotency_key: Key = "",
) -> TaskQueued:
    """Submit an edit; the same as /api/generate/async."""
    queued = await _submit(request, services, http, owner, idempotency_key)
    message = f"{queued.message}. Follow it at /api/generate/stream/{queued.task_id}"
    return queued.model_copy(update={"message": message})


@router.get("", summary="List the edits, newest first")
async def tasks(
    services: Services,
    owner: RequestOwner,
    status: Annotated[
        list[JobStatus] | None, Query(description="only these; may be repeated")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="jobs on a page")] = 20,
    before: Annotated[
        int | None, Query(ge=1, le=MAX_NUMBER, description="`next_before` of the page before")
    ] = None,
) -> TaskList:
    """Return the caller's jobs that the server keeps, by pages; new jobs shift none."""
    found = await services.jobs.newest(owner.name, limit + 1, before, status or ())
    page = found[:limit]
    return TaskList(
        tasks=[
            listed_task(
                job.job_id,
                job.task_type,
                job.created_at,
                services.board.standing(job.job_id, job.last),
            )
            for job in page
        ],
        next_before=page[-1].number if len(found) > limit else None,
    )


@router.post("/async", summary="Submit an edit, by its longer name")
async def generate_async(
    request: GenerationRequest,
    services: Services,
    http: Request,
    owner: RequestOwner,
    idempotency_key: Key = "",
) -> TaskQueued:
    """Submit an edit and return at once; follow it by its task_id."""
    return await _submit(request, services, http, owner, idempotency_key)


@router.get("/status/{task_id}", summary="Ask how far an edit is")
async def status(task_id: TaskId, services: Services) -> TaskStatus:
    """Return what is known about a job."""
    _, event = await services.jobs.last(task_id)
    return task_status(task_id, services.board.standing(task_id, event))


@router.get(
    "/result/{task_id}",
    response_model=GenerationResult,
    responses=NO_RESULT,
    summary="Fetch the result of an edit as JSON",
)
async def result(
    finished: Finished,
    services: Services,
    owner: RequestOwner,
    debug: Annotated[
        bool, Query(description="false: debug_info is null, which leaves most of the bytes out")
    ] = True,
) -> Response:
    """Return a finished job's picture as base64 PNG, with all that is known about it.

    The known web client shows the debug pictures, so they come unless a client does not want them.
    """
    before, behind = result_frame(finished.task_id)
    info: bytes | Stored = Stored(finished.info, start=1)
    if not debug:
        async with services.whole_results.place(owner.name):
            small = await asyncio.to_thread(without_debug, await finished.info.whole())
        info = small[1:]
    return StoredAnswer(
        [before, Stored(finished.image, as_base64=True), behind, info],
        "application/json",
        private_for(finished.seconds_left),
    )


@router.get(
    "/result-image/{task_id}",
    summary="Fetch the edited picture for display",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}, "image/png": {}}}, **NO_RESULT},
)
async def result_image(finished: Finished, services: Services, owner: RequestOwner) -> Response:
    """Return a finished job's picture for display: WebP, its longest side at most 2560."""
    image, media_type = await services.displays.of(
        owner.name, finished.task_id, finished.image.whole
    )
    return Response(image, media_type=media_type, headers=private_for(finished.seconds_left))


@router.get(
    "/stream/{task_id}",
    summary="Follow an edit by server-sent events",
    response_class=Response,
    responses={
        200: {"model": StreamEvent, "content": {"text/event-stream": {}}},
        204: {"description": "All events were received before: do not come back"},
    },
)
async def stream(
    task_id: TaskId,
    services: Services,
    http: Request,
    owner: RequestOwner,
    last_event_id: Annotated[
        str, Query(description="the same as the header, for clients that cannot set one")
    ] = "",
    last_event_id_header: Annotated[
        str,
        Header(alias="Last-Event-ID", description="number of the last event that was received"),
    ] = "",
) -> Response:
    """Stream a job's events, all of them or those after Last-Event-ID, until it ends.

    Each event is one JSON object and its number. A Last-Event-ID that is no number of this job
    counts as none.
    """
    newest, event = await services.jobs.last(task_id)
    # An EventSource that comes back keeps its query, and the header is newer.
    after = _number_of_job(last_event_id_header, newest) or _number_of_job(last_event_id, newest)
    if event.status.terminal and after == newest:
        # The standard's only way to stop an EventSource from coming back for ever.
        return Response(status_code=204)
    events = _events(task_id, after, event, services, sse.framing(http.headers))
    return _EventStream(events, services.streams, owner.name)


@router.post("/stream/{task_id}/token", summary="Get a token for one event stream")
async def stream_token(task_id: TaskId, services: Services, owner: RequestOwner) -> StreamToken:
    """Return what an EventSource, which cannot send a key, appends as `?token=` to the stream.

    It is good for this stream alone and for some minutes: a stream that has begun goes on.
    """
    name = key_name(owner)
    if services.keys is None or name is None:
        return StreamToken(token="", expires_in=None)  # nothing asks for it
    try:
        token = services.keys.token(name, task_id)
    except KeysError as error:
        raise AccessError(str(error)) from None
    return StreamToken(token=token, expires_in=TOKEN_S)


@router.post("/async/cancel/{task_id}", response_model=TaskCancelled, summary="Cancel an edit")
async def cancel(task_id: TaskId, services: Services) -> Response:
    """Stop a job: a waiting one never starts, a running one stops before the engine's next layer.

    A job that has ended stays as it is, and the answer says so.
    """
    status, finish = await services.edits.cancel(task_id)
    if status.terminal:
        message = f"Async generation task {task_id} had already ended with status {status}"
    else:
        message = f"Async generation task {task_id} marked for cancellation"
    body = TaskCancelled(message=message, task_id=task_id, status=status)
    # In the background, because the known web client shows an error if its stream ends before
    # the answer to its cancel.
    return JSONResponse(body.model_dump(), background=BackgroundTask(finish))


class _EventStream(StreamingResponse):
    """Counts as a stream of its owner for as long as it is sent.

    Counted here and not by the endpoint, whose answer is dropped if its client has left.
    """

    def __init__(self, events: AsyncIterator[bytes], streams: Holdings, owner: str) -> None:
        super().__init__(events, headers=sse.HEADERS)
        self._streams = streams
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.held(self._owner):
            await super().__call__(scope, receive, send)


async def _submit(
    request: GenerationRequest, services: Services, http: Request, owner: Owner, key: str
) -> TaskQueued:
    """Check what is cheap to check first, then decode the images, then queue the job.

    A job whose client has left before this answer is cancelled: nobody knows its task_id. With a
    key it goes on, because the client finds it by its key.
    """
    if key:
        submitted = await services.repeats.submit(
            owner.name,
            key,
            await http.body(),
            lambda named: _queue(request, services, owner, named),
        )
    else:
        submitted = await _queue_unless_left(request, services, http, owner)
    return TaskQueued(
        task_id=submitted.job_id,
        message="Generation job submitted successfully",
        size=submitted.event.size,
        eta_seconds=submitted.event.eta_seconds,
        warnings=request.warnings + _too_slow(submitted.event, services),
    )


async def _queue(
    request: GenerationRequest, services: Services, owner: Owner, key: JobKey
) -> Submitted:
    """Decode the images and queue the job."""
    retry = request.retry is not False
    async with _decoded(request, services, owner) as decoded:
        return await services.edits.submit(owner, *decoded, key=key, retry=retry)


async def _queue_unless_left(
    request: GenerationRequest, services: Services, http: Request, owner: Owner
) -> Submitted:
    """Do as `_queue` does, and cancel the job if its client has left."""
    retry = request.retry is not False
    async with _decoded(request, services, owner) as decoded:
        submission = asyncio.ensure_future(services.edits.submit(owner, *decoded, retry=retry))
        try:
            submitted = await asyncio.shield(submission)
        except asyncio.CancelledError:
            await _forget((await submission).job_id, services)
            raise
    if await http.is_disconnected():
        await _forget(submitted.job_id, services)
    return submitted


@contextlib.asynccontextmanager
async def _decoded(
    request: GenerationRequest, services: Services, owner: Owner
) -> AsyncIterator[tuple[EditParams, bytes, Size | None]]:
    """Hold what `Submissions.submit` takes, if it would accept the edit now.

    Only a few edits do so at a time: pixels are many bytes, until they are stored.
    """
    await services.edits.admit(owner, request.resolved_task_type)
    if len(request.conditional_images or []) > (most := services.settings.max_conditional_images):
        raise InvalidInputError(f"conditional_images: more than {most} images")
    async with services.images.edit(owner.name) as images:
        params, original = await _params(request, images)
        yield params, original, _size(request, params)


def _too_slow(event: JobEvent, services: Services) -> list[str]:
    """Return a warning if the edit alone takes longer than a job may, else nothing."""
    seconds = services.board.expected_seconds(event.total_steps, event.size)
    limit_s = services.settings.job_timeout_s
    if seconds is None or seconds <= limit_s:
        return []
    return [
        f"this edit may take {seconds:.0f} s, and a job ends with an error after {limit_s:.0f} s: "
        "lower num_inference_steps or width and height, or use region, "
        "or have ARTMANCER_JOB_TIMEOUT_S raised"
    ]


def _size(request: GenerationRequest, params: EditParams) -> Size | None:
    """Return the size of the answer; None if the model's configuration decides it."""
    if request.region not in (None, "full"):
        resized: bool | None = False
    elif request.input_quality is None:
        resized = None
    else:
        resized = request.input_quality == "resized"
    return answer_size(
        size_of(params.image), resized=resized, width=request.width, height=request.height
    )


async def _forget(task_id: str, services: Services) -> None:
    _, finish = await services.edits.cancel(task_id)
    await finish()


def _number_of_job(text: str, newest: int) -> int:
    """Return a Last-Event-ID as a number, or 0 where the job has no event of that number."""
    if not re.fullmatch(r"[0-9]{1,18}", text := text.strip()):
        return 0
    return number if (number := int(text)) <= newest else 0


async def _params(request: GenerationRequest, images: EditPictures) -> tuple[EditParams, bytes]:
    """Return the edit as the model takes it, and the file of its picture."""
    has_mask = request.resolved_task_type != "white-balance"

    async def read(field: str, text: str, *, mask: bool = False) -> bytes:
        return await (images.mask if mask else images.picture)(field, text)

    async def read_optional(field: str, text: str | None, *, mask: bool = False) -> bytes | None:
        # Clients send an empty string for no picture.
        return await read(field, text, mask=mask) if text else None

    image, original = await images.original("input_image", request.input_image)
    pictures: dict[str, Any] = {
        "image": image,
        "conditional_images": tuple(
            [
                await read(f"conditional_images.{i}", text, mask=has_mask and i == 0)
                for i, text in enumerate(request.conditional_images or [])
            ]
        ),
        "reference_image": await read_optional("reference_image", request.reference_image),
        "reference_mask_r": await read_optional(
            "reference_mask_R", request.reference_mask_r, mask=True
        ),
    }
    if has_mask:
        mask = size_of(pictures["conditional_images"][0])
        request.warn(*stretched("conditional_images.0", mask, size_of(image)))
    if pictures["reference_mask_r"]:
        mask, reference = (
            size_of(pictures[name]) for name in ("reference_mask_r", "reference_image")
        )
        request.warn(*stretched("reference_mask_R", mask, reference))
    if isinstance(request.region, list):
        # Where a reference's object and its shadow are to lie, only the model works out.
        looks = has_mask and not pictures["reference_image"]
        check_region(request.region, image, pictures["conditional_images"][0] if looks else None)
    parameters = request.parameters
    # Drawn here and not in the model, so that a job that starts again makes the same picture.
    if parameters.get("seed") is None:
        parameters["seed"] = secrets.randbelow(DRAWN_SEEDS)
    return EditParams(**parameters, **pictures), original


async def _events(
    task_id: str, after: int, newest: JobEvent, services: Services, framed: sse.Framing
) -> AsyncIterator[bytes]:
    """Yield a job's events from its log, at the subscriber's own pace, until it ends.

    Between them it is told how a waiting job stands, which is not in the log.
    """
    settings = services.settings
    last = told = newest
    pings = _Pings(settings.stream_ping_s)
    try:
        while True:
            wait_s = min(settings.ping_interval_s, pings.due_s) if last.waits else pings.due_s
            for seq, event in await _read(task_id, after, wait_s, services):
                yield framed.event(seq, stream_event(task_id, event).model_dump_json())
                if event.status.terminal:
                    return
                after, last, told = seq, event, event
                pings.reset()
            standing = services.board.standing(task_id, last)
            # It was taken, and its log does not say so yet.
            taken = standing.status is JobStatus.QUEUED and standing.queue_position is None
            if standing.waits and not taken and _place(standing) != _place(told):
                told = standing
                yield framed.note(stream_event(task_id, standing).model_dump_json())
                pings.reset()
            if pings.due_s <= 0:
                yield framed.ping
                pings.reset()
    except (JobNotFoundError, ClosingError):
        # The job expired while the subscriber was not reading, or the server stops.
        return


async def _read(task_id: str, after: int, wait_s: float, services: Services) -> list[Entry]:
    """Read on in a job's log; nothing as long as the store is away, which may come back."""
    try:
        return await services.jobs.read(task_id, after, wait_s)
    except StoreAwayError:
        await asyncio.sleep(wait_s)
        return []


class _Pings:
    """When an idle stream needs a sign of life."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self.reset()

    def reset(self) -> None:
        self._at = time.monotonic() + self._interval_s

    @property
    def due_s(self) -> float:
        return max(0.0, self._at - time.monotonic())


def _place(event: JobEvent) -> tuple[object, ...]:
    """Return what a waiting job's subscribers are told anew when it changes."""
    return (
        event.queue_position,
        event.engine_taken,
        event.triton_down,
        event.triton_loading,
        event.eta_seconds is None,
    )
