"""The RTT of several paths side by side, by plain ping-pong: one datagram under way, timed around the system calls.

All paths are alive at once, each with hosts of its own, and one process asks on them in turns of some milliseconds:
what disturbs the machine disturbs all of them alike. Used to compare paths, never to tell an RTT by itself.
"""

from __future__ import annotations

import gc
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from harness.netns import build
from harness.scenario import Scenario
from harness.specs import INTERNAL, PUBLIC, configuration
from harness.switch import swapper_command
from harness.topology import OUTSIDE_AND_HOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from harness.netns import Namespace

__all__ = ["DIRECT", "TURN", "Front", "Route", "alive", "rtts_us"]

PAYLOAD: Final = b"x" * 64
FIRST: Final = 200  # exchanges before anything counts
WARM_UP: Final = 5
TURN: Final = 40
ECHO: Final = Path(__file__).with_name("echo.py")
PATIENCE: Final = struct.pack("@ll", 1, 0)  # struct timeval


class Front(Protocol):
    """Puts something between the public port and the backend's, on a host, for the length of a block."""

    def __call__(self, host: Namespace, folder: Path, *, public: int, backend: int) -> AbstractContextManager[object]:
        """Up when the block begins."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way from an outside client to the backend: through a dataplane, through a front, or straight to it."""

    name: str
    dataplane: str = ""
    engine: str = ""
    front: Front | None = None
    product: Path | None = None  # the tree whose `swapper` carries it, None for this installation


DIRECT: Final = Route("direct")


def rtts_us(routes: Sequence[Route], *, seconds: float, seed: int, one_core: bool = False) -> dict[str, list[float]]:
    """The median RTT of every turn, in microseconds, by route name; value i of all routes is from the same moment.

    Client and backend each have a core of their own, as two machines do; with `one_core` they share one, which leaves
    out the wake-ups between cores and shows nothing but what the path costs. `seed` sets the order within a turn.
    Raises RuntimeError if an exchange stays without an answer for a second.
    """
    cores = sorted(os.sched_getaffinity(0))
    found: dict[str, list[float]] = {route.name: [] for route in routes}
    order = list(routes)
    shuffle = random.Random(seed)  # noqa: S311 - an order that can be repeated, not a secret
    with ExitStack() as stack:
        ends = {route.name: stack.enter_context(alive(route)) for route in routes}
        asking = {name: asks for name, (asks, _) in ends.items()}
        stack.enter_context(_echo([serves for _, serves in ends.values()], core=cores[0] if one_core else cores[-1]))
        stack.enter_context(_quiet(cores[0]))
        for name, sock in asking.items():
            _exchange(name, sock, FIRST)
        end = time.monotonic() + seconds
        while time.monotonic() < end or not found[routes[0].name]:
            shuffle.shuffle(order)
            for route in order:
                _exchange(route.name, asking[route.name], WARM_UP)
                times = sorted(_exchange(route.name, asking[route.name], TURN))
                found[route.name].append(times[len(times) // 2] / 1000)
    return found


def _exchange(name: str, sock: socket.socket, count: int) -> list[int]:
    """That many exchanges; how long each took, in ns."""
    clock, send, receive = time.perf_counter_ns, sock.send, sock.recv
    times = []
    try:
        for _ in range(count):
            began = clock()
            send(PAYLOAD)
            receive(2048)
            times.append(clock() - began)
    except BlockingIOError:
        raise RuntimeError(f"{name}: no answer within a second") from None
    return times


@contextmanager
def alive(route: Route) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The route's hosts and rules; the client's connected socket and the backend's."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swapper-")))
        net = stack.enter_context(build(OUTSIDE_AND_HOST))
        port = INTERNAL["blue"]
        if route.dataplane:
            config = folder / "swapper.toml"
            scenario = Scenario(dataplane=route.dataplane, engine=route.engine)
            config.write_text(configuration(scenario, folder, OUTSIDE_AND_HOST), encoding="ascii")
            net["host"].run([*swapper_command(route.product), "apply", "--config", str(config)])
            port = PUBLIC
        if route.front:
            stack.enter_context(route.front(net["host"], folder, public=PUBLIC, backend=INTERNAL["blue"]))
            port = PUBLIC
        with net["host"].entered():
            serving = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        serving.bind(("", INTERNAL["blue"]))
        with net["outside"].entered():
            asking = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE)
        asking.connect((OUTSIDE_AND_HOST.target("outside", 4), port))
        yield asking, serving


@contextmanager
def _echo(serving: Sequence[socket.socket], *, core: int) -> Iterator[None]:
    """One process that answers on all these sockets: two would differ by more than the paths do."""
    fds = [sock.fileno() for sock in serving]
    argv = ["setpriv", "--pdeathsig", "KILL", sys.executable, str(ECHO), str(core), *map(str, fds)]
    with subprocess.Popen(argv, pass_fds=fds, stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise RuntimeError("the echo process did not start")
            yield
        finally:
            process.kill()


@contextmanager
def _quiet(core: int) -> Iterator[None]:
    """Meanwhile, the process is on one core and collects no garbage."""
    before = os.sched_getaffinity(0)
    collecting = gc.isenabled()
    os.sched_setaffinity(0, {core})
    gc.disable()
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        if collecting:
            gc.enable()
