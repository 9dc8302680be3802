"""Owns whose a request is: the key that it came with, or the address that it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

from frontend.domain.owners import Limits, Owner, address_name, portion
from frontend.errors import AccessError
from frontend.http import answers

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from frontend.keys import Key, Keys
    from frontend.settings import Settings

# What health checks and people ask for before they have a key; nothing here is anybody's.
OPEN_PATHS = {
    *("/", "/docs", "/redoc", "/openapi.json"),
    *("/livez", "/ping", "/api/health", "/readyz", "/readyz/store", "/api/system/health"),
}
# The scripts of /docs.
OPEN_FOLDER = "/static-offline-docs/"
STREAM_FOLDER = "/api/generate/stream/"
_KEY_OWNER = "key:"


class Access:
    """ASGI middleware that finds a request's owner, and refuses a request that may not come in.

    Args:
        app: the application behind it.
        settings: the limits of owners, and whether requests without a key may come in.
        keys: those that are good; None: nobody needs a key.
    """

    def __init__(self, app: ASGIApp, settings: Settings, keys: Keys | None) -> None:
        self._app = app
        self._keys = keys
        self._needs_key = keys is not None and not settings.allow_anonymous
        self._limits = Limits(
            max_waiting=portion(settings.max_queue_size, settings.owner_fraction),
            # Of what the jobs that have not ended may take, which is half of the store.
            max_bytes=portion(settings.store_bytes // 2, settings.owner_fraction),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its owner."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        address = request.client.host if request.client else ""
        request.state.owner = Owner(address_name(address), self._limits)
        try:
            if key := self._key(request):
                request.state.owner = Owner(f"{_KEY_OWNER}{key.name}", self._limits_of(key))
        except AccessError as error:
            if not _is_open(scope["path"]):
                refusal = await answers.answer_serving_error(request, error)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _key(self, request: Request) -> Key | None:
        """Return the key of a request; None if it came with none and needs none.

        Raises:
            AccessError: it may not come in.
        """
        if self._keys is None:
            return None
        if secret := _secret(request):
            if key := self._keys.find(secret):
                return key
            raise AccessError("The API key is not known here")
        # Not the URL's path, which a Host header may change.
        path: str = request.scope["path"]
        task_id = path.removeprefix(STREAM_FOLDER)
        if (token := request.query_params.get("token")) and task_id != path:
            if key := self._keys.find_token(token, task_id):
                return key
            raise AccessError("token: not good for this stream, or too old")
        if self._needs_key:
            raise AccessError("An API key is needed: send it as `Authorization: Bearer <key>`")
        return None

    def _limits_of(self, key: Key) -> Limits:
        return Limits(
            max_waiting=key.max_waiting or self._limits.max_waiting,
            max_bytes=key.max_bytes or self._limits.max_bytes,
            max_running=key.max_running,
            per_minute=key.per_minute,
        )


def owner_of(scope: Scope) -> Owner:
    """Return the owner of a request that has passed `Access`."""
    owner: Owner = scope["state"]["owner"]
    return owner


def key_name(owner: Owner) -> str | None:
    """Return the name of an owner's key; None if it has none."""
    name = owner.name.removeprefix(_KEY_OWNER)
    return None if name == owner.name else name


def _secret(request: Request) -> str:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    # A proxy may have passwords of its own, which come by the scheme Basic.
    return secret.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)
