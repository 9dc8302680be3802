"""Owns the headers that every answer has: what browsers and caches may do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from starlette.datastructures import MutableHeaders

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A picture or a JSON runs nothing, whatever a stranger has put into it.
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
# The pages of this server load their own files, and scripts that stand in them.
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "frame-ancestors 'none'"
)
NEVER_STORED = {"Cache-Control": "no-store"}


def safe_headers(*, page: bool = False, shared: bool = False) -> dict[str, str]:
    """Return the headers that tell a browser to trust nothing.

    Args:
        page: whether the answer is a page of this server.
        shared: whether pages of other origins may show the answer.
    """
    return {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": _PAGE_POLICY if page else _DATA_POLICY,
        "Cross-Origin-Resource-Policy": "cross-origin" if shared else "same-origin",
        "Referrer-Policy": "no-referrer",
    }


def private_for(seconds: float) -> dict[str, str]:
    """Return the headers of an answer that only its client may keep.

    Args:
        seconds: how long; none of them: nobody may keep it.
    """
    if seconds < 1:
        return NEVER_STORED
    return {
        "Cache-Control": f"private, max-age={int(seconds)}",
        # What a proxy with authentication lets one user see is not another's.
        "Vary": "Authorization, X-API-Key, Cookie",
    }


class SafeHeaders:
    """ASGI middleware that adds these headers where the application has not set them.

    Args:
        app: the application behind it.
        shared: whether pages of other origins may show answers.
    """

    def __init__(self, app: ASGIApp, *, shared: bool) -> None:
        self._app = app
        self._of_data = _raw(NEVER_STORED | safe_headers(shared=shared))
        self._of_pages = _raw(NEVER_STORED | safe_headers(page=True, shared=shared))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Each answer comes by here, so this works on the bytes.
                set_already = dict(message["headers"])
                page = set_already.get(b"content-type", b"").startswith(b"text/html")
                wanted = self._of_pages if page else self._of_data
                message["headers"].extend(each for each in wanted if each[0] not in set_already)
                if b"location" in set_already:
                    headers = MutableHeaders(raw=message["headers"])
                    headers["location"] = _without_host(headers["location"])
            await send(message)

        await self._app(scope, receive, send_safely)


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _without_host(location: str) -> str:
    """Return a redirect's target on this server: the request's Host may name any other."""
    return urlunsplit(urlsplit(location)._replace(scheme="", netloc=""))
