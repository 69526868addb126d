"""Measures the pace of the machine that this runs on, once in a process."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import time
from typing import Final

from harness import wire
from harness.pace import Pace
from harness.sockets import CONTROL_SIZE, udp
from harness.switch import swapper_command

__all__ = ["pace"]

COMMANDS: Final = 2
EXCHANGES: Final = 300
RUN: Final = 1


@functools.cache
def pace() -> Pace:
    """What the `swapper` command and a datagram's round trip take here, without rules."""
    return Pace(min(_command_s() for _ in range(COMMANDS)), _exchange_s(), os.cpu_count() or 1)


def _command_s() -> float:
    began = time.monotonic()
    subprocess.run([*swapper_command(), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _exchange_s() -> float:
    """Processor time, not time: what else this machine does meanwhile is no part of it."""
    with udp(4, "127.0.0.1", 0) as backend, udp(4, "127.0.0.1", 0) as client:
        client.connect(backend.getsockname())
        began = time.process_time()
        for seq in range(EXCHANGES):
            client.send(wire.encode_unchecked(RUN, 0, 0, seq, wire.MIN_PAYLOAD, 0, 0))
            data, address = _receive(backend)
            wire.decode(data, RUN)
            backend.sendto(wire.stamped(data, wire.BLUE), address)
            wire.decode(_receive(client)[0], RUN)
        return (time.process_time() - began) / EXCHANGES


def _receive(sock: socket.socket) -> tuple[bytes, tuple[str, int]]:
    # On loopback a datagram is there before its send returns.
    data, _, _, address = sock.recvmsg(wire.MAX_PAYLOAD + 1, CONTROL_SIZE)
    return data, address
