"""Measures the pace of the machine that this runs on, once in a process, and holds scenarios to it."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness import wire
from harness.pace import Pace, slowed
from harness.sockets import udp
from harness.switch import swapper_command
from harness.workers import Worker

if TYPE_CHECKING:
    import socket

    from harness.scenario import Scenario

__all__ = ["held", "pace"]

COMMANDS: Final = 2
BATCHES: Final = 10
EXCHANGES: Final = 20  # in a batch
RUN: Final = 1


def held(scenario: Scenario) -> Scenario:
    """The scenario as this machine can hold it."""
    return slowed(scenario, pace())


@functools.cache
def pace() -> Pace:
    """What the `swapper` command and a datagram's round trip take here, without rules; the best of several looks.

    Whatever else the machine does meanwhile can only add.
    """
    return Pace(min(_command_s() for _ in range(COMMANDS)), _exchange_s(), os.cpu_count() or 1)


def _command_s() -> float:
    began = time.monotonic()
    subprocess.run([*swapper_command(), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _exchange_s() -> float:
    """With a backend of the harness's own: two processes that wake each other are most of the cost."""
    with tempfile.TemporaryDirectory(prefix="swapper-") as folder, udp(4, "127.0.0.1", 0) as free:
        port = free.getsockname()[1]
        free.close()
        spec = {
            "who": wire.BLUE,
            "run": RUN,
            "listen": [{"family": 4, "port": port, "address": "127.0.0.1"}],
            "log": str(Path(folder) / "log"),
            "capacity": BATCHES * EXCHANGES,
        }
        backend = Worker.start([], "backend", spec, where="this namespace")
        with backend.await_ready(), udp(4, "127.0.0.1", 0) as client:
            client.settimeout(5)
            client.connect(("127.0.0.1", port))
            return min(_batch_s(client) for _ in range(BATCHES)) / EXCHANGES


def _batch_s(client: socket.socket) -> float:
    began = time.perf_counter()
    for seq in range(EXCHANGES):
        client.send(wire.encode_unchecked(RUN, 0, 0, seq, wire.MIN_PAYLOAD, 0, 0))
        wire.decode(client.recv(wire.MAX_PAYLOAD), RUN)
    return time.perf_counter() - began
