"""The load workers: `load` sends one flow at a rate, `sink` counts what arrives, each on a socket that it inherits.

Unlike a stream they log no single datagram: at the rates where a path gives in, the log would give in first. Every
load has a mark, the content of its datagrams, so that what the one before left in a queue is told from its own.
Standard library only.
"""

from __future__ import annotations

import os
import select
import socket
import time
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from harness.mmsg import Batch
from harness.senders import LATE_NS, send_batches
from harness.sockets import NS, drops
from harness.worker import Orders, say

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TOGETHER", "load", "sink"]

PAYLOAD: Final = 64  # bytes
TOGETHER: Final = 10  # datagrams for one sleep
SINK_SLOTS: Final = 256
LEAD_NS: Final = 20_000_000
STDIN: Final = 0


def load(spec: dict[str, Any]) -> None:
    """Send as told, `spin MARK RATE COUNT` or `sleep MARK RATE COUNT`, and report on each; to the owner's end.

    At no higher priority than others: a proxy that shares the core would be the one to pay.
    """
    sock = _placed(spec)
    waits: dict[str, Callable[[socket.socket, int, int, int], dict[str, int]]] = {"spin": _spin, "sleep": _sleep}
    orders = Orders()
    say({"ready": True})
    while not orders.closed:
        for line in orders.read():
            wait, *numbers = line.split()
            say(waits[wait](sock, *map(int, numbers)))


def sink(spec: dict[str, Any]) -> None:
    """Count what arrives; `count MARK` is answered with that load's datagrams and with all that the buffer dropped."""
    sock = _placed(spec)
    batch = Batch(SINK_SLOTS, PAYLOAD)
    arrived: Counter[int] = Counter()
    ready = select.poll()
    ready.register(STDIN, select.POLLIN)
    ready.register(sock, select.POLLIN)
    orders = Orders()
    say({"ready": True})
    while not orders.closed:
        for fd, _ in ready.poll():
            if fd != STDIN:
                arrived.update(batch.data[: batch.receive(sock) * PAYLOAD : PAYLOAD].tobytes())
                continue
            for line in orders.read():
                say({"arrived": arrived[int(line.split()[1])], "dropped": drops(sock)})


def _placed(spec: dict[str, Any]) -> socket.socket:
    os.sched_setaffinity(0, {spec["core"]})
    return socket.socket(fileno=spec["fds"][0])


def _spin(sock: socket.socket, mark: int, rate_per_s: int, count: int) -> dict[str, int]:
    """As punctual as can be: the core is never given up between two slots."""
    stream = {"payload": PAYLOAD, "rate_per_s": rate_per_s, "count": count}
    datagrams, times = bytes([mark]) * PAYLOAD * count, array("q", [0]) * count
    t0_ns = time.time_ns() + LEAD_NS
    outcome = send_batches(stream, datagrams, t0_ns, sock, times)
    took_ns = time.time_ns() - t0_ns
    sent = sum(1 for at in times if at)
    late = sum(1 for seq, at in enumerate(times) if at - t0_ns - seq * NS // rate_per_s > LATE_NS)
    return {"sent": sent, "late_slots": max(0, late - outcome.stolen_slots), "took_ns": took_ns}


def _sleep(sock: socket.socket, mark: int, rate_per_s: int, count: int) -> dict[str, int]:
    """As cheap as can be: asleep until some are due together."""
    batch = Batch(TOGETHER, PAYLOAD)
    batch.data[:] = bytes([mark]) * PAYLOAD * TOGETHER
    t0_ns = time.time_ns() + LEAD_NS
    sent = late = 0
    for seq in range(0, count, TOGETHER):
        due_ns = t0_ns + seq * NS // rate_per_s
        while (ahead_ns := due_ns - time.time_ns()) > 0:
            time.sleep(ahead_ns / NS)
        late += TOGETHER if -ahead_ns > LATE_NS else 0
        try:
            sent += batch.send(sock, TOGETHER)
        except ConnectionRefusedError:
            continue  # answers an earlier datagram: nobody is there any more
    return {"sent": sent, "late_slots": late, "took_ns": time.time_ns() - t0_ns}
