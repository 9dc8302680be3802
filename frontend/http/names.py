"""Owns which names this server answers to, and whose pages may send to it.

A browser on this machine reaches the loopback interface for any page that it shows. A page whose
name is made to lead here (DNS rebinding) even counts as this server's own. But no page chooses the
headers Host and Origin, so these tell a stranger's page from a client.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from frontend.http.refusals import RefusalLog
    from frontend.settings import Settings

ANY = "*"
WRONG_HOST, WRONG_ORIGIN = 421, 403
MAX_SHOWN_CHARS = 100
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]{0,5})?")
_ORIGIN = re.compile(r"https?://(.*)")


class KnownNames:
    """ASGI middleware that refuses requests to other hosts, and those of strangers' pages.

    A request without either header comes from no browser, and passes.

    Args:
        app: the application behind it.
        settings: the operator's names and origins.
        refusals: logs what is refused.
    """

    def __init__(self, app: ASGIApp, settings: Settings, refusals: RefusalLog) -> None:
        self._app = app
        self._refusals = refusals
        self._any_host = ANY in settings.allowed_hosts
        self._any_origin = ANY in settings.cors_origins
        self._origins = set(settings.cors_origins)
        self._names = {each.lower() for each in settings.allowed_hosts} | _own_names(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        refused = self._reason_to_refuse(scope) if scope["type"] == "http" else None
        if refused is None:
            await self._app(scope, receive, send)
            return
        status, detail = refused
        self._refusals.note(Request(scope), status, detail, failed=False)
        await JSONResponse({"detail": detail}, status)(scope, receive, send)

    def _reason_to_refuse(self, scope: Scope) -> tuple[int, str] | None:
        hosts = _values(scope, b"host")
        if len(hosts) > 1 or not all(map(self._answers_to, hosts)):
            return WRONG_HOST, (
                f"Host: this server does not answer to {_shown(hosts)}; its operator may add the "
                "name to ARTMANCER_ALLOWED_HOSTS"
            )
        origins = _values(scope, b"origin")
        if not all(self._may_send(origin, "".join(hosts)) for origin in origins):
            return WRONG_ORIGIN, (
                f"Origin: pages of {_shown(origins)} may not send to this server; its operator may "
                "add the origin to ARTMANCER_CORS_ORIGINS"
            )
        return None

    def _answers_to(self, host: str) -> bool:
        """Return whether a Host is one of ours.

        Any address is: a page that was made to lead here has a name.
        """
        name = _name(host)
        return self._any_host or host == "" or self._is_ours(name) or _address(name) is not None

    def _may_send(self, origin: str, host: str) -> bool:
        """Return whether pages of an origin may send a request to `host`.

        Any port of ours will do: who serves pages on this machine needs no browser to come here.
        But an address alone is no proof, since anybody may have pages at his own.
        """
        if self._any_origin or origin in self._origins:
            return True
        found = _ORIGIN.fullmatch(origin.lower())
        name = _name(found[1]) if found else ""  # "null" too: any page can have that
        return name != "" and (self._is_ours(name) or name == _name(host))

    def _is_ours(self, name: str) -> bool:
        address = _address(name)
        if address is not None and address.is_loopback:
            return True
        return name in self._names or name.endswith(".localhost")


def _own_names(listens_on: str) -> set[str]:
    machine = socket.gethostname().lower()
    label = machine.partition(".")[0]
    # .local: how others on the same network find this machine.
    return {"localhost", machine, label, f"{label}.local", listens_on.lower()} - {""}


def _name(host: str) -> str:
    """Return a Host without its port, in small letters; "" if it cannot be read."""
    found = _HOST.fullmatch(host.lower())
    return (found[1] or found[2]).removesuffix(".") if found else ""


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _values(scope: Scope, header: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for name, value in scope["headers"] if name == header]


def _shown(values: list[str]) -> str:
    return repr(", ".join(values)[:MAX_SHOWN_CHARS])
