from __future__ import annotations

import socket
from pathlib import Path

from frontend.launcher import ports


def test_a_port_in_use_is_not_free() -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as listener:
        assert not ports.is_free(listener.getsockname()[1])


def test_a_port_that_a_closed_server_left_in_time_wait_is_free() -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            accepted.close()  # the side that closes first is left in TIME_WAIT
            assert client.recv(1) == b""
    assert ports.is_free(port)


def test_free_ports_are_distinct_and_free() -> None:
    found = ports.free(8)
    assert len(set(found)) == 8
    assert all(ports.is_free(port) for port in found)


def test_no_call_gives_the_ports_of_another() -> None:
    # A server may not listen yet on those that the first call gave.
    assert not set(ports.free(4)) & set(ports.free(4))


def test_no_outgoing_connection_gets_a_free_port_meanwhile() -> None:
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports.free(4)) < least
