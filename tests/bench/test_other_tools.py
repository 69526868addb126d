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

from bench.parts.paths import compare
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
LOOKS: Final = 8  # at most, at a growing record
ROUNDS: Final = 25  # of each tool, between two looks
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
    """The harness's own p50 on that socket, between two exchanges a rest that ends spinning.

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
    return median(times) / 1000


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
    as_said: dict[str, list[float]] = {"irtt": [], "ours": []}
    on_the_wire: dict[str, list[float]] = {"irtt": [], "ours": []}
    slowness = support.slowness()
    with build(OUTSIDE_AND_HOST) as net, server(net, cores[-1], "irtt", "server", "-b", ADDRESS, "-i", "0"):
        sock, opened = greet(net, "irtt", IRTT_OPEN)
        message = (IRTT + b"\0" + opened[4:12]).ljust(SIZE, b"\0")  # the token, then number 0
        wire = Wire(net)
        with sock, wire.sock, pingpong._quiet(cores[0]):
            for _ in range(LOOKS):
                for _ in range(ROUNDS):
                    as_said["ours"].append(ours_us(sock, message, seconds=0.1, rest_s=0.001))
                    on_the_wire["ours"].append(wire.p50_us())
                    net["outside"].run(command)
                    said = json.loads((tmp_path / "irtt.json").read_bytes())
                    as_said["irtt"].append(said["stats"]["rtt"]["median"] / 1000)
                    on_the_wire["irtt"].append(wire.p50_us())
                within_us = WITHIN_US * max(slowness, support.slowness())  # a machine's pace changes
                said_low, said_high = difference_us(as_said)
                wire_low, wire_high = difference_us(on_the_wire)
                agree = max(-wire_low, wire_high, said_high) < within_us
                if agree or max(-wire_high, wire_low, said_low) > within_us:
                    break
    support.MEASURED.info(
        "ours less irtt's: %.1f to %.1f us, of this on the wire %.1f to %.1f us, at most %.1f us",
        *(said_low, said_high, wire_low, wire_high, within_us),
    )
    assert agree, (as_said, on_the_wire, within_us)
    assert all(seen < said for seen, said in zip(on_the_wire["ours"], as_said["ours"], strict=True))


def difference_us(rounds_us: dict[str, list[float]]) -> tuple[float, float]:
    """Between what the median of ours less irtt's lies, all looks together erring in 5 of 100 runs."""
    found = compare(rounds_us, seed=1, confidence=1 - 0.05 / LOOKS, against="irtt")[1]
    irtt_us = median(rounds_us["irtt"])
    return (found.low - 1) * irtt_us, (found.high - 1) * irtt_us
