"""The harness's round trips are those of two tools that others wrote, on the same path and against the same server.

What has to be equal is equal: the core, the server, the length of the messages, and how long a client rests between
two of them. The last matters most: after a millisecond's rest an exchange takes twice as long as without any.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
import struct
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from harness import pingpong
from harness.exchanges import PATIENCE, ask
from harness.netns import build
from harness.topology import OUTSIDE_AND_HOST
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from harness.netns import Net

pytestmark = pytest.mark.netns

ADDRESS: Final = OUTSIDE_AND_HOST.target("outside", 4)
SIZE: Final = 64
WITHIN_US: Final = 3
ERR: Final = 0.05  # that an interval misses the median, over all looks
PORTS: Final = {"sockperf": 11111, "irtt": 2112}
SOCKPERF_PING: Final = struct.pack("!QHI", 1, 3, SIZE).ljust(SIZE, b"\0")  # number, flags CLIENT and PONG, length
IRTT: Final = b"\x14\xa7\x5b"
IRTT_OPEN: Final = IRTT + b"\x01\x01\x02\x04\x80\x01"  # OPEN; protocol 1; length 64 (signed varints)


@contextmanager
def server(net: Net, core: int, *argv: str) -> Iterator[None]:
    with net["host"].popen(["taskset", "-c", str(core), *argv], stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def speaking(net: Net, tool: str, greeting: bytes) -> tuple[socket.socket, bytes]:
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


def ours_us(sock: socket.socket, message: bytes, *, seconds: float, rest_s: float) -> float:
    """The harness's own p50 on that socket."""
    times: list[int] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        times += ask(sock, message, 1 if rest_s else 100)
        if rest_s:
            time.sleep(rest_s)
    return sorted(times)[len(times) // 2] / 1000


def median_within(values: Sequence[float], miss: float) -> tuple[float, float]:
    """Two of the values between which the median lies, but for a chance of `miss`: a sign test turned round."""
    ordered, n = sorted(values), len(values)
    chances = [sum(math.comb(n, below) for below in range(outside + 1)) / 2**n for outside in range(n // 2)]
    outside = sum(2 * chance <= miss for chance in chances) - 1
    return (ordered[outside], ordered[-1 - outside]) if outside >= 0 else (-math.inf, math.inf)


def agree(tool: str, ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int, looks: int) -> None:
    """Take turns until the interval of the paired differences lies within 3 us, or cannot any more."""
    pairs: list[tuple[float, float]] = []
    low, high = -math.inf, math.inf
    for _ in range(looks):
        pairs += [(ours(), theirs()) for _ in range(rounds)]
        low, high = median_within([mine - other for mine, other in pairs], ERR / looks)
        if (low >= -WITHIN_US and high <= WITHIN_US) or low > WITHIN_US or high < -WITHIN_US:
            break
    middle = [sorted(values)[len(pairs) // 2] for values in zip(*pairs, strict=True)]
    found = f"p50 ours {middle[0]:.1f} us, {tool} {middle[1]:.1f} us; they differ by {low:.1f} to {high:.1f} us"
    support.MEASURED.info("%s", found)
    assert low >= -WITHIN_US, found
    assert high <= WITHIN_US, found


def test_sockperf_finds_the_same_round_trip() -> None:
    core = min(os.sched_getaffinity(0))  # one for both: what wakes up on another core takes what it takes
    with build(OUTSIDE_AND_HOST) as net, server(net, core, "sockperf", "server", "-i", ADDRESS):
        sock, _ = speaking(net, "sockperf", SOCKPERF_PING)

        def theirs() -> float:
            options = ["-i", ADDRESS, "-m", str(SIZE), "-t", "1", "--full-rtt"]
            done = net["outside"].run(["taskset", "-c", str(core), "sockperf", "ping-pong", *options])
            found = re.search(r"percentile 50\.000 =\s*([\d.]+)", done.stdout)
            assert found, done.stdout
            return float(found[1])

        with sock, pingpong._quiet(core):
            agree("sockperf", lambda: ours_us(sock, SOCKPERF_PING, seconds=0.2, rest_s=0), theirs, rounds=7, looks=2)


def test_irtt_finds_the_same_round_trip(tmp_path: Path) -> None:
    # A core each: on one, a client that runs on after sending makes its own answer late, and Go's does.
    cores = sorted(os.sched_getaffinity(0))
    found = tmp_path / "irtt.json"
    with build(OUTSIDE_AND_HOST) as net, server(net, cores[-1], "irtt", "server", "-b", ADDRESS, "-i", "0"):
        sock, opened = speaking(net, "irtt", IRTT_OPEN)
        message = (IRTT + b"\0" + opened[4:12]).ljust(SIZE, b"\0")  # the token, then number 0

        def theirs() -> float:
            schedule = ["-i", "1ms", "-d", "200ms", "--wait=20ms"]
            options = ["-l", str(SIZE), "--stats=none", "--tstamp=none", "-Q", "-o", str(found)]
            net["outside"].run(["taskset", "-c", str(cores[0]), "irtt", "client", *schedule, *options, ADDRESS])
            return float(json.loads(found.read_bytes())["stats"]["rtt"]["median"]) / 1000

        with sock, pingpong._quiet(cores[0]):
            agree("irtt", lambda: ours_us(sock, message, seconds=0.2, rest_s=0.001), theirs, rounds=10, looks=4)
