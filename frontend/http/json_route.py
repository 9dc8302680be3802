"""Owns reading JSON bodies of megabytes in a fraction of the standard parser's time."""

from collections.abc import Callable, Coroutine
from typing import Any

import pydantic_core
from fastapi import Request, Response

from frontend.http.wanted_route import WantedRoute


class _Request(Request):
    async def json(self) -> Any:
        """Return the parsed body; the standard parser words the error of a broken one."""
        try:
            return pydantic_core.from_json(await self.body())
        except ValueError:
            return await super().json()


class JsonRoute(WantedRoute):
    """A route whose body holds base64 for the most part."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See WantedRoute."""
        handle = super().get_route_handler()

        async def handle_quickly(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return handle_quickly
