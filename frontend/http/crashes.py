"""Owns the answer to an error that nobody foresaw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from frontend.http.refusals import RefusalLog


class CrashAnswer:
    """ASGI middleware that answers 500 where the application raises.

    It stands inside the CORS layer, so that a browser's script may read the answer. Starlette's
    own handler for Exception stands outside.

    Args:
        app: the application behind it.
        refusals: logs the traceback.
    """

    def __init__(self, app: ASGIApp, refusals: RefusalLog) -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except Exception:
            self._refusals.crashed(scope["method"], scope["path"])
            if begun:
                return  # The HTTP server closes the connection: half an answer must not look whole.
            answer = JSONResponse({"detail": "Internal server error"}, 500)
            await answer(scope, receive, send)
