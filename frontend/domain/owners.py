"""Owns the words of an owner: whose a request is, and how much one owner may have at a time."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass

# Networks of IPv6 are given out in these, so one client may have all addresses of one.
IPV6_PREFIX = 64


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the jobs of one owner may take at a time."""

    max_waiting: int
    """Jobs that wait to start."""
    max_bytes: int
    """Bytes of the images of its jobs that have not ended."""
    max_running: int | None = None
    """Jobs that Tritons have; None: no bound of its own."""
    per_minute: float | None = None
    """Edits that it may submit each minute, counted as `price` does; None: no bound."""


@dataclass(frozen=True)
class Owner:
    """Who a request comes from; nobody else sees what it makes."""

    name: str
    """`key:<name>` of the key that came with the request, or else `address:<address>`."""
    limits: Limits


# Price of an edit: what ten steps of a picture of 1024² pixels cost is 1.
UNIT = 10 * 1024**2
# Price of the smallest edit, because decoding and conditions cost something too.
LEAST_PRICE = 0.1


def price(steps: int, pixels: int) -> float:
    """Return the price of an edit: its steps times its pixels, in usual edits.

    Args:
        steps: denoising steps.
        pixels: that each step computes.
    """
    return max(LEAST_PRICE, steps * pixels / UNIT)


def portion(total: int, fraction: float) -> int:
    """Return how much of `total` one owner may have: a fraction of it, and at least 1."""
    return max(1, math.ceil(total * fraction))


def address_name(address: str) -> str:
    """Return the name of the owner of an address: an IPv6 client owns its whole /64.

    Args:
        address: as a socket or a trusted proxy gives it; empty for a socket without one.
    """
    try:
        parsed = ipaddress.ip_address(unmapped(address).partition("%")[0])
    except ValueError:
        return f"address:{address}"
    if isinstance(parsed, ipaddress.IPv6Address) and not parsed.is_loopback:
        return f"address:{ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False)}"
    return f"address:{parsed}"


def unmapped(address: str) -> str:
    """Return the IPv4 address that an IPv6 address stands for, or else the address."""
    try:
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return address if mapped is None else str(mapped)
