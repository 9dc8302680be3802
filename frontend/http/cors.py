"""Owns which pages of other origins may read answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from starlette.datastructures import Headers


class Cors(CORSMiddleware):
    """Starlette's middleware, with refusals in the form of all others."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer to a browser that asks whether a page may send a request."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        headers = {
            name: value
            for name, value in answer.headers.items()
            if name not in {"content-length", "content-type"}
        }
        detail = bytes(answer.body).decode()
        return JSONResponse({"detail": detail}, answer.status_code, headers)
