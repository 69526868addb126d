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
import time
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Final

import pytest

from harness import pingpong
from harness.exchanges import PATIENCE, ask
from harness.netns import build
from harness.sockets import CONTROL_SIZE, SO_TIMESTAMPNS, received_ns
from harness.topology import OUTSIDE_AND_HOST
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.netns import Net

pytestmark = pytest.mark.bench

ADDRESS: Final = OUTSIDE_AND_HOST.target("outside", 4)
SIZE: Final = 64
WITHIN_US: Final = 3
PORTS: Final = {"sockperf": 11111, "irtt": 2112}
SOCKPERF_PING: Final = struct.pack("!QHI", 1, 3, SIZE).ljust(SIZE, b"\0")  # number, flags CLIENT and PONG, length
IRTT: Final = b"\x14\xa7\x5b"
IRTT_OPEN: Final = IRTT + b"\x01\x01\x02\x04\x80\x01"  # OPEN; protocol 1; length 64 (signed varints)
ETH_P_ALL: Final = 3
HEADERS: Final = 28  # IPv4 and UDP


class Wire:
    """When the kernel saw each datagram of `SIZE` bytes leave the client's host and its answer arrive."""

    def __init__(self, net: Net) -> None:
        with net["outside"].entered():
            self.sock = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL)
            )
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def p50_us(self) -> float:
        """From leaving to arriving, of all exchanges since the last look."""
        took: list[int] = []
        left_ns = 0
        while True:
            try:
                data, control, _, address = self.sock.recvmsg(2048, CONTROL_SIZE)
            except BlockingIOError:
                return median(took) / 1000
            if len(data) != HEADERS + SIZE:
                continue
            if address[2] == socket.PACKET_OUTGOING:
                left_ns = received_ns(control)
            else:
                took.append(received_ns(control) - left_ns)


@contextmanager
def server(net: Net, core: int, *argv: str) -> Iterator[None]:
    with net["host"].popen(["taskset", "-c", str(core), *argv], stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


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


def ours_us(sock: socket.socket, message: bytes, *, seconds: float, rest_s: float = 0) -> float:
    """The harness's own p50 on that socket."""
    times: list[int] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        times += ask(sock, message, 1 if rest_s else 100)
        if rest_s:
            time.sleep(rest_s)
    return median(times) / 1000


def test_sockperf_finds_the_same_round_trip() -> None:
    core = min(os.sched_getaffinity(0))  # one for both: what wakes up on another core takes what it takes
    options = ["-i", ADDRESS, "-m", str(SIZE), "-t", "1", "--full-rtt"]
    command = ["taskset", "-c", str(core), "sockperf", "ping-pong", *options]
    pairs = []
    with build(OUTSIDE_AND_HOST) as net, server(net, core, "sockperf", "server", "-i", ADDRESS):
        sock, _ = greet(net, "sockperf", SOCKPERF_PING)
        with sock, pingpong._quiet(core):
            for _ in range(3):
                # Its client sleeps for two seconds before it begins.
                with net["outside"].popen(command, stdout=subprocess.PIPE) as process:
                    mine = ours_us(sock, SOCKPERF_PING, seconds=1)
                    said, _ = process.communicate(timeout=30)
                found = re.search(r"percentile 50\.000 =\s*([\d.]+)", said.decode())
                assert found, said
                pairs.append((mine, float(found[1])))
    support.MEASURED.info("p50, ours and sockperf's, us: %s", pairs)
    assert abs(median(mine - theirs for mine, theirs in pairs)) < WITHIN_US * support.slowness()


def test_irtt_finds_the_same_round_trip(tmp_path: Path) -> None:
    """What the kernel saw of both is compared: irtt reads its clock in goroutines, which Go has to wake.

    Go's wake-ups (epoll_pwait, read, a write to a pipe for its timer) take nothing on an idle machine and ten
    microseconds on a busy one, where they find cold caches.
    """
    cores = sorted(os.sched_getaffinity(0))
    schedule = ["-i", "1ms", "-d", "100ms", "--wait=20ms"]
    options = ["-l", str(SIZE), "--stats=none", "--tstamp=none", "-Q", "-o", str(tmp_path / "irtt.json")]
    command = ["taskset", "-c", str(cores[0]), "irtt", "client", *schedule, *options, ADDRESS]
    pairs, on_the_wire = [], []
    slowness = support.slowness()
    with build(OUTSIDE_AND_HOST) as net, server(net, cores[-1], "irtt", "server", "-b", ADDRESS, "-i", "0"):
        sock, opened = greet(net, "irtt", IRTT_OPEN)
        message = (IRTT + b"\0" + opened[4:12]).ljust(SIZE, b"\0")  # the token, then number 0
        wire = Wire(net)
        with sock, wire.sock, pingpong._quiet(cores[0]):
            for _ in range(25):
                mine, my_wire = ours_us(sock, message, seconds=0.1, rest_s=0.001), wire.p50_us()
                net["outside"].run(command)
                theirs = json.loads((tmp_path / "irtt.json").read_bytes())["stats"]["rtt"]["median"] / 1000
                pairs.append((mine, theirs))
                on_the_wire.append((my_wire, wire.p50_us()))
    # Whatever else the machine does can only add: of each, the best round.
    apart_us, wires_apart_us = (min(a for a, _ in found) - min(b for _, b in found) for found in (pairs, on_the_wire))
    support.MEASURED.info("p50, ours less irtt's: %.1f us, of this on the wire %.1f us", apart_us, wires_apart_us)
    within_us = WITHIN_US * max(slowness, support.slowness())  # before and after: a machine's pace changes
    assert abs(wires_apart_us) < within_us
    assert apart_us < within_us
    assert all(wire_us < mine for (mine, _), (wire_us, _) in zip(pairs, on_the_wire, strict=True))
