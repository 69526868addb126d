"""What sockets a network namespace has and what waits in them, read from /proc/PID/net (proc_pid_net(5))."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from swapper.model import Protocol

__all__ = ["Socket", "connections", "listening", "owner", "read", "waiting_bytes"]

ESTABLISHED, CLOSE_WAIT, LISTEN = 0x01, 0x08, 0x0A
FILES = {Protocol.UDP: ("udp", "udp6"), Protocol.TCP: ("tcp", "tcp6")}


@dataclass(frozen=True, slots=True)
class Socket:
    """One line of /proc/PID/net/udp or alike."""

    protocol: Protocol
    address: str  # as the kernel writes it: hexadecimal; all zero is a wildcard
    port: int
    remote_port: int
    state: int
    send_queue_bytes: int
    receive_queue_bytes: int
    inode: int


def read(pid: int | str, protocol: Protocol) -> list[Socket]:
    """The sockets of the namespace that process `pid` ("self") lives in, both families; empty when it is gone."""
    found: list[Socket] = []
    for name in FILES[protocol]:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]
            found += [_socket(protocol, line.split()) for line in lines]
    return found


def listening(pid: int | str, protocol: Protocol) -> set[int]:
    """The ports on which something answers: bound for UDP, listening for TCP."""
    return {
        one.port
        for one in read(pid, protocol)
        if (one.state == LISTEN if protocol is Protocol.TCP else one.remote_port == 0)
    }


def waiting_bytes(pid: int | str, protocol: Protocol, ports: AbstractSet[int]) -> int:
    """Bytes that wait to be read by, or sent from, sockets on these ports."""
    return sum(
        one.receive_queue_bytes + one.send_queue_bytes
        for one in read(pid, protocol)
        if one.port in ports and one.state != LISTEN
    )


def connections(pid: int | str, ports: AbstractSet[int]) -> int:
    """TCP connections that are open on these ports, this side not having closed them."""
    return sum(one.port in ports and one.state in (ESTABLISHED, CLOSE_WAIT) for one in read(pid, Protocol.TCP))


def owner(protocol: Protocol, port: int) -> str:
    """Who holds a port of this namespace, in words."""
    inodes = {f"socket:[{one.inode}]" for one in read("self", protocol) if one.port == port and one.remote_port == 0}
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - names alone are wanted
        if any(link in inodes for link in _descriptors(pid)):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"process {pid} ({words.strip()[:80]})"
    return "a process that cannot be seen from here"


def _socket(protocol: Protocol, fields: list[str]) -> Socket:
    address, port = fields[1].split(":")
    send_queue, receive_queue = fields[4].split(":")
    return Socket(
        protocol,
        address,
        int(port, 16),
        int(fields[2].partition(":")[2], 16),
        int(fields[3], 16),
        int(send_queue, 16),
        int(receive_queue, 16),
        int(fields[9]),
    )


def _descriptors(pid: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - names alone are wanted
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115 - no path, a socket's name
