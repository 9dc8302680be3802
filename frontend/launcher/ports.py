"""Owns questions about TCP ports on the loopback interface."""

from __future__ import annotations

import itertools
import os
import socket

LOOPBACK = "127.0.0.1"
# Below the ports that systems give to outgoing connections, which would take one away meanwhile.
_FIRST, _COUNT = 20_000, 12_000
# Processes that start together begin at ports far apart: their ids are neighbours, and steps of the
# golden section are not. So one asks for hundreds before it comes to those of another.
_numbers = itertools.count(os.getpid() * 7417)


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port now."""
    with socket.socket() as probe:
        # Set as servers set it: old connections that are closing do not keep a port from them.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free(count: int) -> list[int]:
    """Return distinct ports that nothing uses now; each call returns others.

    Raises:
        OSError: nearly all ports are in use.
    """
    candidates = (_FIRST + next(_numbers) % _COUNT for _ in range(_COUNT))
    found = list(itertools.islice(filter(is_free, candidates), count))
    if len(found) < count:
        raise OSError("no free ports")
    return found
