"""Owns owners for tests of the parts that take one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frontend.domain.owners import Limits, Owner

if TYPE_CHECKING:
    from starlette.types import Scope


def owner(name: str = "address:127.0.0.1", **limits: Any) -> Owner:
    """Return an owner that may have more than any test takes, but for `limits`."""
    return Owner(name, Limits(**{"max_waiting": 10**6, "max_bytes": 10**12} | limits))


def owned(scope: Scope, name: str = "address:127.0.0.1") -> Scope:
    """Return a scope as the middleware behind `Access` gets it."""
    return {**scope, "state": {"owner": owner(name)}}
