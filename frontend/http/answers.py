"""Owns the answers to errors: their status and their one sentence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from frontend.errors import (
    RETRY_AFTER_S,
    AccessError,
    JobFailedError,
    ServingError,
    TooMuchError,
    UnavailableError,
    UnsupportedError,
    own_words,
)
from frontend.http.schemas.fields import CROSS_FIELD
from frontend.http.schemas.unknown import JsonRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from fastapi import Request, Response

MAX_SHOWN_ERRORS = 3
_LATER = {TooMuchError.status, UnavailableError.status}


def _json_error(
    request: Request,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
    *,
    failed: bool,
) -> JSONResponse:
    request.app.state.refusals.note(request, status, detail, failed=failed)
    later = {"Retry-After": str(RETRY_AFTER_S)} if status in _LATER else {}
    body = {"detail": detail, **(facts or {})}
    return JSONResponse(body, status, {**later, **(headers or {})})


async def answer_serving_error(request: Request, error: Exception) -> JSONResponse:
    """Return the answer to one of the tree of errors that a client can meet."""
    assert isinstance(error, ServingError)
    # A failed job was logged at its end; asking for its result is no new failure.
    failed = _is_failure(error.status) and not isinstance(error, JobFailedError)
    headers = {}
    if isinstance(error, TooMuchError):
        headers = {"Retry-After": str(math.ceil(error.retry_after_s))}
    elif isinstance(error, AccessError):
        headers = {"WWW-Authenticate": 'Bearer realm="artmancer"'}
    return _json_error(
        request, error.status, error.detail, headers, facts=error.facts, failed=failed
    )


async def _answer_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    sentences = map(_sentence, error.errors()[:MAX_SHOWN_ERRORS])
    # What is missing may be there by another name.
    facts = {"warnings": found} if (found := _warnings(request, error.body)) else None
    return _json_error(request, 400, "; ".join(sentences), facts=facts, failed=False)


def _warnings(request: Request, body: object) -> list[str]:
    """Return what an accepted request with this body would be told."""
    field = request.scope["route"].body_field
    model = field.field_info.annotation if field else None
    if isinstance(model, type) and issubclass(model, JsonRequest):
        return model.warnings_about(body)
    return []


async def _answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.__cause__ is not None:
        # FastAPI raised it: the JSON is nested too deeply, say. int() has no subclass for digits.
        digits = type(error.__cause__) is ValueError
        reason = "a number has too many digits" if digits else "not readable as JSON"
        return _json_error(request, error.status_code, f"body: {reason}", failed=False)
    failed = _is_failure(error.status_code)
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return _json_error(request, error.status_code, error.detail, headers, failed=failed)


def _is_failure(status: int) -> bool:
    """Return whether the server is at fault, and not the client that asks for what it lacks."""
    return status >= 500 and status != UnsupportedError.status


def _allowed(request: Request) -> str:
    """Return the methods of all routes of a path: Starlette names those of its first one."""
    methods: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


def _sentence(error: dict[str, Any]) -> str:
    """Return one of pydantic's errors as a sentence that begins with the field."""
    place, *path = error["loc"]
    if error["type"] == CROSS_FIELD:
        return str(error["msg"])
    if error["type"] == "json_invalid":
        # Some of the parser's sentences end in the word before its own number.
        reason = error["ctx"]["error"].removesuffix(" at")
        return f"{place}: not JSON: {reason} at character {path[0]}"
    if not path:
        return f"{place}: must be a JSON object sent as application/json"
    # Without pydantic's own names of a field's possible types, such as `list[int]`.
    names = [str(each) for each in path if "[" not in str(each)]
    return f"{'.'.join(names)}: {own_words(error['msg'])}"


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    ServingError: answer_serving_error,
    RequestValidationError: _answer_invalid_request,
    HTTPException: _answer_http_exception,
}
"""What answers each class of error, for FastAPI(exception_handlers=...)."""
