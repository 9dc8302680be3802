"""Owns the FastAPI app: what it is built from, and how its errors are answered."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from frontend import logs
from frontend.dispatch.dispatcher import EditService
from frontend.errors import RETRY_AFTER_S, ServingError, UnavailableError
from frontend.http.body_limit import BodyLimit
from frontend.http.dependencies import Services
from frontend.http.routes import generate, masks, system, visualization
from frontend.http.schemas.edits import CROSS_FIELD
from frontend.jobs.store import MemoryJobStore
from frontend.masks.image_store import ImageStore
from frontend.masks.service import MaskService
from frontend.pictures.workers import ImageWorkers
from frontend.settings import Settings
from frontend.triton.client import TritonClient
from frontend.triton.edit_tensors import IMAGE_EDIT
from frontend.triton.mask_tensors import SMART_MASK
from frontend.triton.watch import TritonWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from fastapi import Request

MAX_SHOWN_ERRORS = 3


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the app; it connects to Triton when it is started.

    Args:
        settings: read from the environment where not given.
    """
    settings = settings or Settings()
    logs.configure(settings.log_level)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _services(settings) as app.state.services:
            yield

    app = FastAPI(
        title="ArtMancer",
        summary="Image editing and smart masks on Triton, with progress by server-sent events.",
        version="1",
        lifespan=lifespan,
    )
    for module in (generate, masks, visualization, system):
        app.include_router(module.router)
    app.add_exception_handler(ServingError, _answer_serving_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(Exception, _answer_crash)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        max_pending_bytes=settings.max_pending_body_bytes,
    )
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["Retry-After", "Content-Disposition"],
    )
    return app


@contextlib.asynccontextmanager
async def _services(settings: Settings) -> AsyncIterator[Services]:
    clients = [TritonClient(url) for url in settings.triton_grpc_urls]
    images = ImageWorkers(settings)
    jobs = MemoryJobStore(settings.memory_bytes, settings.result_ttl_s)
    store = ImageStore(settings.image_store_bytes, settings.image_store_ttl_s)
    timeout_s = settings.ping_timeout_s
    edit_watches = [
        TritonWatch(client, IMAGE_EDIT, client.cancel_edit, timeout_s) for client in clients
    ]
    mask_watches = [
        TritonWatch(client, SMART_MASK, client.cancel_mask, timeout_s) for client in clients
    ]
    try:
        async with (
            EditService(settings, jobs, edit_watches) as edits,
            MaskService(settings, store, mask_watches) as masks,
        ):
            yield Services(settings, images, jobs, edits, store, masks)
    finally:
        images.close()
        for client in clients:
            await client.close()


def _refusal(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    later = {"Retry-After": str(RETRY_AFTER_S)} if status == UnavailableError.status else {}
    return JSONResponse({"detail": detail}, status, {**later, **(headers or {})})


async def _answer_serving_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServingError)
    return _refusal(error.status, error.detail)


async def _answer_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _refusal(400, "; ".join(map(_sentence, error.errors()[:MAX_SHOWN_ERRORS])))


async def _answer_http_exception(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.__cause__ is not None:
        # FastAPI's own: nested too deeply, or a number of too many digits.
        return _refusal(error.status_code, "body: not readable as JSON")
    return _refusal(error.status_code, error.detail, error.headers)


async def _answer_crash(_request: Request, _error: Exception) -> JSONResponse:
    # Starlette raises it again after this answer, and the HTTP server logs it.
    return _refusal(500, "Internal server error")


def _sentence(error: dict[str, Any]) -> str:
    """Put one of pydantic's errors into words, its field first."""
    place, *path = error["loc"]
    if error["type"] == CROSS_FIELD:
        return str(error["msg"])
    if error["type"] == "json_invalid":
        return f"{place}: not JSON: {error['ctx']['error']} at character {path[0]}"
    if not path:
        return f"{place}: must be a JSON object sent as application/json"
    return f"{'.'.join(map(str, path))}: {error['msg']}"
