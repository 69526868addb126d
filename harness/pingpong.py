"""The RTT of several paths side by side, by plain ping-pong: one exchange under way, timed around the system calls.

All paths are alive at once, each with hosts of its own, and one process asks on them in turns of some milliseconds:
what disturbs the machine disturbs all of them alike. Used to compare paths, never to tell an RTT by itself.
"""

from __future__ import annotations

import gc
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from array import array
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np

from harness.crowd import CROWDED, open_flows
from harness.exchanges import Asker
from harness.histogram import Histogram
from harness.netns import build, dying_with_owner
from harness.scenario import Scenario
from harness.specs import INTERNAL, PUBLIC, TCP_INTERNAL, TCP_PUBLIC, configuration
from harness.switch import swapper_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from harness.netns import Namespace

__all__ = [
    "DIRECT",
    "DIRECT_AGAIN",
    "FRESH_TURN",
    "TURN",
    "Front",
    "RoundTrips",
    "Route",
    "alive",
    "echoing",
    "round_trips",
    "rtts_us",
    "standing",
]

FIRST: Final = 200  # exchanges before anything counts
WARM_UP: Final = 5
TURN: Final = 40
FRESH_TURN: Final = 5
# Each a flow that nobody has seen. A proxy keeps it for half a minute and more, socat with a process of its own, so no
# run has more of them.
FRESH_PORTS: Final = range(20_000, 20_500)
BACKLOG: Final = 1024
ECHO: Final = Path(__file__).with_name("echo.py")


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
    payload: int = 64  # bytes each way
    protocol: Literal["udp", "tcp"] = "udp"
    flows: int = 1  # of UDP, live through the public port, opened before anything is timed
    ports: int = 1  # public UDP ports of its service

    @property
    def is_tracked(self) -> bool:
        """Whether conntrack knows its flows."""
        return self.dataplane in {"zones", "classic"}


DIRECT: Final = Route("direct")
DIRECT_AGAIN: Final = Route("direct, again")  # what it differs by from the other is the noise of the machine


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """What was found on one route: the median of every turn, and all exchanges of all turns."""

    turns_us: list[float]
    histogram: Histogram

    @classmethod
    def of(cls, times_ns: Sequence[int], *, turn: int) -> RoundTrips:
        """From all exchanges in order, `turn` of them in each turn."""
        turns_us = np.median(np.array(times_ns).reshape(-1, turn), axis=1) / 1000
        return cls(turns_us.tolist(), Histogram.of(times_ns))

    def to_json(self) -> dict[str, Any]:
        """Both, as the results of a run keep them."""
        return {"turns_us": self.turns_us, "histogram": self.histogram.to_json()}


def round_trips(
    routes: Sequence[Route], *, seconds: float, seed: int, fresh: bool = False, one_core: bool = False
) -> dict[str, RoundTrips]:
    """The round trips of every route, by its name; turn i of all routes is from the same moment.

    An exchange is a datagram and its answer, or a request and its answer on an open TCP connection. With `fresh` it is
    the first datagram of a flow, or the TCP connection too; then it may end before its time, with all ports used up.
    Client and backend each have a core of their own, as two machines do; with `one_core` they share one, which leaves
    out the wake-ups between cores and shows nothing but what the path costs. `seed` sets the order within a turn.
    Raises RuntimeError if an exchange fails, or stays without an answer for a second.
    """
    cores = sorted(os.sched_getaffinity(0))
    times_ns = {route.name: array("q") for route in routes}
    with ExitStack() as stack:
        ends = {route.name: stack.enter_context(standing(route)) for route in routes}
        serving = [serves for _, serves in ends.values()]
        stack.enter_context(echoing(serving, core=cores[0] if one_core else cores[-1]))
        stack.enter_context(_quiet(cores[0]))
        kept = {}
        for name, (asker, _) in ends.items():
            with _named(name):
                kept[name] = stack.enter_context(asker.connected())
                asker.ask(kept[name], FIRST)
        for name, ports in _turns(routes, seconds=seconds, seed=seed, fresh=fresh):
            asker = ends[name][0]
            with _named(name):
                asker.ask(kept[name], WARM_UP)
                times_ns[name].extend(asker.ask_anew(ports) if fresh else asker.ask(kept[name], TURN))
    turn = FRESH_TURN if fresh else TURN
    return {name: RoundTrips.of(found, turn=turn) for name, found in times_ns.items()}


def rtts_us(routes: Sequence[Route], *, seconds: float, seed: int, one_core: bool = False) -> dict[str, list[float]]:
    """The median RTT of every turn, in microseconds, by route name: of `round_trips`, what paths are compared by."""
    found = round_trips(routes, seconds=seconds, seed=seed, one_core=one_core)
    return {name: one.turns_us for name, one in found.items()}


def _turns(routes: Sequence[Route], *, seconds: float, seed: int, fresh: bool) -> Iterator[tuple[str, range]]:
    """Whose turn it is, and from which new ports, until the time is over after at least one turn of all."""
    shuffle = random.Random(seed)  # noqa: S311 - an order that can be repeated, not a secret
    order = [route.name for route in routes]
    new = (FRESH_PORTS[at : at + FRESH_TURN] for at in range(0, len(FRESH_PORTS), FRESH_TURN))
    turns: Iterable[range] = new if fresh else repeat(range(0))
    end = time.monotonic() + seconds
    for ports in turns:
        shuffle.shuffle(order)
        for name in order:
            yield name, ports
        if time.monotonic() > end:
            return


@contextmanager
def alive(route: Route) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The route's hosts and rules; the client's connected socket and the backend's."""
    with standing(route) as (asker, serving), asker.connected() as asking:
        yield asking, serving


@contextmanager
def standing(route: Route) -> Iterator[tuple[Asker, socket.socket]]:
    """The route's hosts and rules; who asks, and the backend's socket."""
    tcp = route.protocol == "tcp"
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    public, backend = (TCP_PUBLIC, TCP_INTERNAL["blue"]) if tcp else (PUBLIC, INTERNAL["blue"])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swapper-")))
        net = stack.enter_context(build(CROWDED))
        if route.dataplane:
            config = folder / "swapper.toml"
            scenario = Scenario(dataplane=route.dataplane, engine=route.engine, ports=route.ports, tcp=tcp)
            config.write_text(configuration(scenario, folder, CROWDED), encoding="ascii")
            net["host"].run([*swapper_command(route.product), "apply", "--config", str(config)])
        if route.front:
            stack.enter_context(route.front(net["host"], folder, public=public, backend=backend))
        with net["host"].entered():
            serving = stack.enter_context(socket.socket(socket.AF_INET, kind))
        serving.bind(("", backend))
        if tcp:
            serving.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
            serving.listen(BACKLOG)
        port = public if route.dataplane or route.front else backend
        if route.flows > 1:
            open_flows(net, port=port, flows=route.flows - 1, tracked=route.is_tracked)
        target = (CROWDED.target("outside", 4), port)
        yield Asker(net["outside"], CROWDED.source("outside", 4), target, kind, route.payload), serving


@contextmanager
def echoing(serving: Sequence[socket.socket], *, core: int) -> Iterator[None]:
    """One process that answers on all these sockets: two would differ by more than the paths do."""
    fds = [sock.fileno() for sock in serving]
    argv = dying_with_owner([sys.executable, str(ECHO), str(core), *map(str, fds)])
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


@contextmanager
def _named(name: str) -> Iterator[None]:
    """An exchange that fails says on which route."""
    try:
        yield
    except BlockingIOError:
        raise RuntimeError(f"{name}: no answer within a second") from None
    except OSError as error:
        raise RuntimeError(f"{name}: {error}") from error
