"""UDP sockets as the workers need them: large buffers, kernel timestamps, drop counters.

Standard library only.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

__all__ = ["af", "drops", "received_ns", "udp"]

SO_RCVBUFFORCE: Final = 33
SO_TIMESTAMPNS: Final = 35
SO_MEMINFO: Final = 55
DROPS_INDEX: Final = 8  # SK_MEMINFO_DROPS, include/uapi/linux/sock_diag.h
LARGE_BUFFER: Final = 8 << 20
TIMESPEC: Final = struct.Struct("@qq")
CONTROL_SIZE: Final = 64
NS: Final = 1_000_000_000


def udp(family: int, address: str, port: int, *, rcvbuf: int | None = None) -> socket.socket:
    """A bound, non-blocking UDP socket that stamps arrivals; IPv6 ones take no IPv4; OSError if taken."""
    sock = socket.socket(af(family), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        # FORCE passes net.core.rmem_max; the kernel doubles what it is given.
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, rcvbuf or LARGE_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        if family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"{error.strerror}: udp port {port} on {address or 'any'}") from error
    return sock


def af(family: int) -> socket.AddressFamily:
    """AF_INET for 4, AF_INET6 for 6."""
    return socket.AF_INET6 if family == 6 else socket.AF_INET


def drops(sock: socket.socket) -> int:
    """How many datagrams this socket's buffer had no room for (and those with a bad checksum)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36)
    return int(struct.unpack_from("@I", raw, 4 * DROPS_INDEX)[0])


def received_ns(control: list[tuple[int, int, bytes]]) -> int:
    """The kernel's receive time in CLOCK_REALTIME ns; 0 if it gave none."""
    for _, kind, data in control:
        if kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = TIMESPEC.unpack(data)
            return int(seconds) * NS + int(nanoseconds)
    return 0
