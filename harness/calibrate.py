"""Measures the pace of the machine that this runs on, once in a process, and holds scenarios to it."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Final

from harness import wire
from harness.pace import Pace, slowed
from harness.sockets import udp
from harness.switch import swapper_command
from harness.workers import Worker

if TYPE_CHECKING:
    from harness.scenario import Scenario

__all__ = ["held", "pace", "processors"]

LOOKS: Final = 2
RUN: Final = 1
ADDRESS: Final = "127.0.0.1"
RATE_PER_S: Final = 2000  # as in most scenarios
LONE_PER_S: Final = 100
LASTS_S: Final = 0.25


def held(scenario: Scenario) -> Scenario:
    """The scenario as this machine can hold it."""
    return slowed(scenario, pace())


@functools.cache
def pace() -> Pace:
    """What the `swapper` command and a datagram take here, without rules; the best of several looks.

    Whatever else the machine does meanwhile can only add.
    """
    exchange_s, lone_exchange_s = (min(_exchange_s(rate) for _ in range(LOOKS)) for rate in (RATE_PER_S, LONE_PER_S))
    return Pace(min(_command_s() for _ in range(LOOKS)), exchange_s, lone_exchange_s, processors())


def processors() -> float:
    """How many processors this process may fill: its share, where pytest-xdist plays scenarios in several at once."""
    return (os.cpu_count() or 1) / int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def _command_s() -> float:
    began = time.monotonic()
    subprocess.run([*swapper_command(), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _exchange_s(rate_per_s: int) -> float:
    """Processor time of a client and a backend, as scenarios have them, for each datagram that is echoed."""
    count = int(rate_per_s * LASTS_S)
    with tempfile.TemporaryDirectory(prefix="swapper-") as folder:
        with udp(4, ADDRESS, 0) as free:
            port = free.getsockname()[1]
        backend = {
            "who": wire.BLUE,
            "run": RUN,
            "listen": [{"family": 4, "port": port, "address": ADDRESS}],
            "log": f"{folder}/seen",
            "capacity": count,
        }
        stream = {
            "id": 0,
            "family": 4,
            "address": ADDRESS,
            "port": port,
            "rate_per_s": rate_per_s,
            "count": count,
            "flows": 1,
            "pattern": "long",
            "sender": "socket",
            "payload": wire.MIN_PAYLOAD,
            "first_port": 0,  # any
            "sent_log": f"{folder}/sent",
        }
        client = {"run": RUN, "log": f"{folder}/received", "capacity": count, "linger_ms": 100, "streams": [stream]}
        workers = [Worker.start(*one, where="this namespace") for one in (("backend", backend), ("client", client))]
        with workers[0] as serving, workers[1] as asking:
            serving.await_ready()
            asking.await_ready().go(time.time_ns())
            cpu_s: float = asking.result(timeout_s=60)["cpu_s"] + serving.stop()["cpu_s"]
            return cpu_s / count
