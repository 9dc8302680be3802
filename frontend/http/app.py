"""Owns the FastAPI app, and the services that it is built from."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from frontend import logs, memory
from frontend.dispatch.dispatcher import LEASE_S, Dispatcher
from frontend.http import answers
from frontend.http.access import Access
from frontend.http.answer_limit import AnswerLimit
from frontend.http.body_limit import BodyLimit
from frontend.http.cors import Cors
from frontend.http.crashes import CrashAnswer
from frontend.http.dependencies import AppServices
from frontend.http.displays import Displays
from frontend.http.head import HeadAsGet
from frontend.http.names import KnownNames
from frontend.http.refusals import RefusalLog
from frontend.http.repeats import Repeats
from frontend.http.routes import (
    dispatching,
    generate,
    masks,
    not_built,
    system,
    visualization,
)
from frontend.http.safe_headers import SafeHeaders
from frontend.jobs import places
from frontend.jobs.board import Board
from frontend.jobs.sql_pictures import SqlPictures
from frontend.jobs.submissions import Submissions
from frontend.jobs.sweeper import Sweeper
from frontend.keys import Keys
from frontend.masks.image_store import ImageStore
from frontend.masks.pictures import Pictures
from frontend.masks.service import MaskService
from frontend.masks.tritons import MaskTritons
from frontend.pictures.workers import ImageWorkers
from frontend.settings import Settings
from frontend.shares import Holdings, Turns
from frontend.supervision import supervised_task
from frontend.triton.client import TritonClient
from frontend.triton.edit_tensors import IMAGE_EDIT
from frontend.triton.watch import TritonWatch
from frontend.version import VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from frontend.jobs.sql_store import SqlStore
    from frontend.jobs.store import JobStore

MODULES = (generate, masks, visualization, not_built, system)
TAGS = [
    {"name": "generation", "description": "Edits: submit, follow, fetch, cancel."},
    {"name": "masks", "description": "The mask of an object, and the object cut out."},
    {"name": "visualization", "description": "An edit's pictures as files."},
    {"name": "system", "description": "The server's own health."},
    {"name": "not built", "description": "Known names that answer 501."},
]
"""What /docs says of each group of endpoints, in this order."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the app; it connects to Triton when it starts.

    Args:
        settings: None: read from the environment.

    Raises:
        KeysError: the keys file cannot be used.
    """
    settings = settings or Settings()
    logs.configure(settings.log_level)
    if not settings.serves:
        return _dispatching_app(settings)
    keys = Keys(settings.keys_file) if settings.keys_file else None

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _services(settings, keys) as app.state.services:
            yield

    # FastAPI's own pages load their script from a public server; these bring it along.
    app = FastAPIOffline(
        title="ArtMancer",
        summary="Image editing and smart masks on Triton, with progress by server-sent events.",
        version=VERSION,
        openapi_tags=TAGS,
        lifespan=lifespan,
        exception_handlers=answers.HANDLERS,
        # As they are: routers that are included are built anew for each app, in 70 ms.
        routes=[route for module in MODULES for route in module.router.routes],
    )
    app.state.refusals = RefusalLog()
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        max_pending_bytes=settings.max_pending_body_bytes,
        max_uploads=settings.max_connections,
        owner_fraction=settings.owner_fraction,
    )
    # Each one added stands outside those before it.
    app.add_middleware(
        AnswerLimit,
        max_pending_bytes=settings.max_pending_answer_bytes,
        owner_fraction=settings.owner_fraction,
    )
    app.add_middleware(Access, settings=settings, keys=keys)
    app.add_middleware(HeadAsGet)
    app.add_middleware(CrashAnswer, refusals=app.state.refusals)
    app.add_middleware(
        Cors,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["*"],
        expose_headers=["Retry-After", "Content-Disposition"],
    )
    app.add_middleware(KnownNames, settings=settings, refusals=app.state.refusals)
    app.add_middleware(SafeHeaders, shared=bool(settings.cors_origins))
    return app


def _dispatching_app(settings: Settings) -> FastAPI:
    """Build the app of a process that gives jobs to Tritons and serves no client."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _jobs(settings) as jobs, _dispatcher(settings, jobs) as dispatcher:
            app.state.check_ready = dispatcher.require
            yield

    app = FastAPI(
        openapi_url=None,
        lifespan=lifespan,
        exception_handlers=answers.HANDLERS,
        routes=dispatching.router.routes,
    )
    app.state.refusals = RefusalLog()
    app.add_middleware(HeadAsGet)
    app.add_middleware(CrashAnswer, refusals=app.state.refusals)
    return app


@contextlib.asynccontextmanager
async def _services(settings: Settings, keys: Keys | None) -> AsyncIterator[AppServices]:
    images = ImageWorkers(settings)
    kept = settings.image_store_bytes, settings.image_store_ttl_s
    cache = ImageStore(*kept)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(images.close)
        jobs = await stack.enter_async_context(_jobs(settings))
        dispatcher = None
        if settings.dispatches:
            dispatcher = await stack.enter_async_context(_dispatcher(settings, jobs))
        board = await stack.enter_async_context(
            Board(jobs, settings.max_queue_size, settings.recovery_timeout_s)
        )
        tritons = await stack.enter_async_context(MaskTritons(settings, board))
        pictures = await stack.enter_async_context(Pictures(cache, SqlPictures(jobs.driver, *kept)))
        masks = await stack.enter_async_context(
            MaskService(settings, cache, pictures, jobs, tritons, images)
        )
        if dispatcher is not None:
            # First of all: no job waits for what ends slowly before it may wait again.
            stack.callback(dispatcher.stop)
        yield AppServices(
            settings,
            keys,
            images,
            jobs,
            board,
            Submissions(jobs, board),
            Repeats(jobs, settings.max_pending_body_bytes, settings.owner_fraction),
            cache,
            masks,
            Holdings("event streams", settings.max_connections // 2, settings.owner_fraction),
            Displays(images.webp),
            Turns(1, Holdings("whole results", settings.max_connections, settings.owner_fraction)),
        )


@contextlib.asynccontextmanager
async def _jobs(settings: Settings) -> AsyncIterator[SqlStore]:
    """Open the store of jobs, and keep it and this process tidy."""
    jobs = await places.open_store(settings)
    housekeeping = (
        supervised_task("sweeper", Sweeper(jobs, LEASE_S).run()),
        supervised_task("memory", memory.run()),
    )
    try:
        yield jobs
    finally:
        for task in housekeeping:
            task.cancel()
        await jobs.close()


@contextlib.asynccontextmanager
async def _dispatcher(settings: Settings, jobs: JobStore) -> AsyncIterator[Dispatcher]:
    timeout_s = settings.ping_timeout_s
    clients = [TritonClient(url) for url in settings.triton_grpc_urls]
    watches = [TritonWatch(client, IMAGE_EDIT, client.cancel_edit, timeout_s) for client in clients]
    try:
        async with Dispatcher(settings, jobs, watches) as dispatcher:
            yield dispatcher
    finally:
        for client in clients:
            await client.close()
