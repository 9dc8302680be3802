"""Owns ending the work of a request whose client has left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from frontend.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

# Nobody reads this answer; nginx logs such requests by this number.
CLIENT_LEFT = 499


class WantedRoute(APIRoute):
    """A route whose work takes a while, and is cancelled as soon as its client disconnects.

    The body is read first, because the message after it is the client's disconnect.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()

        async def handle_while_wanted(request: Request) -> Response:
            try:
                await request.body()
            except ClientDisconnect:
                return Response(status_code=CLIENT_LEFT)
            work = asyncio.create_task(handle(request))
            leaving = asyncio.create_task(_client_left(request))
            try:
                await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    return await work
                return Response(status_code=CLIENT_LEFT)
            finally:
                # The one who is left, or both where this request itself is cancelled.
                for task in [each for each in (work, leaving) if each.cancel()]:
                    await _ended(task, request)

        return handle_while_wanted


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _ended(task: asyncio.Task[Any], request: Request) -> None:
    """Wait for a cancelled task, and log what it raises: nobody else hears of it."""
    try:
        await task
    except (asyncio.CancelledError, ServingError):
        pass
    except Exception:
        request.app.state.refusals.crashed(request.method, request.scope["path"])
