"""The harness's round trips are those of two tools that others wrote, on the same path and against the same server.

What has to be equal is equal: the cores, the server, the length of the messages, and how long a client rests between
two of them. The last matters most: after a millisecond's rest an exchange takes several times as long as without any.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final

import pytest

from harness import pingpong
from harness.exchanges import PATIENCE, ask
from harness.netns import build
from harness.sockets import CONTROL_SIZE, SO_TIMESTAMPNS, received_ns
from harness.topology import OUTSIDE_AND_HOST
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from harness.netns import Net

pytestmark = pytest.mark.bench

ADDRESS: Final = OUTSIDE_AND_HOST.target("outside", 4)
SIZE: Final = 64
WITHIN_US: Final = 3
ROUNDS: Final = 150  # of each tool, in turns
PORTS: Final = {"sockperf": 11111, "irtt": 2112}
SOCKPERF_PING: Final = struct.pack("!QHI", 1, 3, SIZE).ljust(SIZE, b"\0")  # number, flags CLIENT and PONG, length
IRTT: Final = b"\x14\xa7\x5b"
IRTT_OPEN: Final = IRTT + b"\x01\x01\x02\x04\x80\x01"  # OPEN; protocol 1; length 64 (signed varints)
ETH_P_ALL: Final = 3
HEADERS: Final = 28  # IPv4 and UDP
AWAKE: Final = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
end = time.monotonic() + 180
while time.monotonic() < end:
    pass
"""


class Wire:
    """When the kernel saw each datagram of `SIZE` bytes leave the client's host and its answer arrive."""

    def __init__(self, net: Net) -> None:
        with net["outside"].entered():
            self.sock = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL)
            )
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def took_us(self) -> list[float]:
        """From leaving to arriving, of each exchange since the last look."""
        took: list[float] = []
        left_ns = 0
        while True:
            try:
                data, control, _, address = self.sock.recvmsg(2048, CONTROL_SIZE)
            except BlockingIOError:
                return took
            if len(data) != HEADERS + SIZE:
                continue
            if address[2] == socket.PACKET_OUTGOING:
                left_ns = received_ns(control)
            elif left_ns:  # else it answers what left before the last look
                took.append((received_ns(control) - left_ns) / 1000)
                left_ns = 0


@contextmanager
def server(net: Net, core: int, *argv: str) -> Iterator[None]:
    with net["host"].popen(["taskset", "-c", str(core), *argv], stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def awake(net: Net, cores: Iterable[int]) -> Iterator[None]:
    """Cores that never rest, and still are there for whoever wants them: a hypervisor wakes them when it likes."""
    with ExitStack() as stack:
        for core in cores:
            spinning = stack.enter_context(net["host"].popen([sys.executable, "-c", AWAKE, str(core)]))
            stack.callback(spinning.kill)
        yield


def greet(net: Net, tool: str, greeting: bytes) -> tuple[socket.socket, bytes]:
    """A socket connected to the tool's server, and what it answered to the greeting as soon as it was up."""
    with net["outside"].entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE)
    sock.connect((ADDRESS, PORTS[tool]))
    deadline = time.monotonic() + 10
    while True:
        try:
            sock.send(greeting)
            return sock, sock.recv(2048)
        except (ConnectionRefusedError, BlockingIOError):  # not there yet, or not done with starting
            assert time.monotonic() < deadline, f"{tool} does not answer"
            time.sleep(0.01)


def ours_us(sock: socket.socket, message: bytes, *, seconds: float, rest_s: float = 0) -> list[float]:
    """What the harness says of each exchange on that socket, between two of them a rest that ends spinning.

    After a sleep Python's code finds cold caches and takes some microseconds more.
    """
    times: list[int] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        times += ask(sock, message, 1 if rest_s else 100)
        rested = time.monotonic() + rest_s
        time.sleep(rest_s * 0.9)
        while time.monotonic() < rested:
            pass
    return [took_ns / 1000 for took_ns in times]


def test_sockperf_finds_the_same_round_trip() -> None:
    core = min(os.sched_getaffinity(0))  # one for both: what wakes up on another core takes what it takes
    options = ["-i", ADDRESS, "-m", str(SIZE), "-t", "1", "--full-rtt"]
    command = ["taskset", "-c", str(core), "sockperf", "ping-pong", *options]
    pairs = []
    with build(OUTSIDE_AND_HOST) as net, server(net, core, "sockperf", "server", "-i", ADDRESS):
        sock, _ = greet(net, "sockperf", SOCKPERF_PING)
        with sock, pingpong._quiet(core):
            for _ in range(5):
                # Its client sleeps for two seconds before it begins.
                with net["outside"].popen(command, stdout=subprocess.PIPE) as process:
                    mine = median(ours_us(sock, SOCKPERF_PING, seconds=1))
                    said, _ = process.communicate(timeout=30)
                found = re.search(r"percentile 50\.000 =\s*([\d.]+)", said.decode())
                assert found, said
                pairs.append((mine, float(found[1])))
    support.MEASURED.info("p50, ours and sockperf's, us: %s", pairs)
    assert abs(median(mine - theirs for mine, theirs in pairs)) < WITHIN_US * support.slowness()


def test_irtt_finds_the_same_round_trip(tmp_path: Path) -> None:
    """What the kernel saw of both is compared: irtt reads its clock in goroutines, which Go has to wake.

    Go's wake-ups (epoll_pwait, read, a write to a pipe for its timer) take nothing on an idle machine and ten
    microseconds on a busy one, where they find cold caches. Whatever else a machine does can only add, for whole rounds
    of either tool: so lower quartiles are compared, of the exchanges of all rounds.
    """
    cores = sorted(os.sched_getaffinity(0))
    schedule = ["-i", "1ms", "-d", "100ms", "--wait=20ms"]
    options = ["-l", str(SIZE), "--stats=none", "--tstamp=none", "-Q", "-o", str(tmp_path / "irtt.json")]
    command = ["taskset", "-c", str(cores[0]), "irtt", "client", *schedule, *options, ADDRESS]
    said_us: dict[str, list[float]] = {"irtt": [], "ours": []}
    wire_us: dict[str, list[float]] = {"irtt": [], "ours": []}
    slowness = support.slowness()
    with build(OUTSIDE_AND_HOST) as net, server(net, cores[-1], "irtt", "server", "-b", ADDRESS, "-i", "0"):
        sock, opened = greet(net, "irtt", IRTT_OPEN)
        message = (IRTT + b"\0" + opened[4:12]).ljust(SIZE, b"\0")  # the token, then number 0
        wire = Wire(net)
        with sock, wire.sock, pingpong._quiet(cores[0]), awake(net, {cores[0], cores[-1]}):
            for _ in range(ROUNDS):
                said_us["ours"] += ours_us(sock, message, seconds=0.1, rest_s=0.001)
                wire_us["ours"] += wire.took_us()
                net["outside"].run(command)
                trips = json.loads((tmp_path / "irtt.json").read_bytes())["round_trips"]
                said_us["irtt"] += [trip["delay"]["rtt"] / 1000 for trip in trips if "rtt" in trip["delay"]]
                wire_us["irtt"] += wire.took_us()
    within_us = WITHIN_US * max(slowness, support.slowness())  # a machine's pace changes
    said, seen = ({tool: quantiles(us, n=4)[0] for tool, us in found.items()} for found in (said_us, wire_us))
    support.MEASURED.info("lower quartiles, us: %s, on the wire %s, within %.1f", said, seen, within_us)
    assert len(wire_us["ours"]) == len(said_us["ours"]) > 50 * ROUNDS
    assert len(said_us["irtt"]) > 50 * ROUNDS
    assert abs(seen["ours"] - seen["irtt"]) < within_us, seen
    assert seen["ours"] < said["ours"] < said["irtt"] + within_us, said
