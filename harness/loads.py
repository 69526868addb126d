"""The owner's end of the load workers: one load after the other through a path, and what became of each."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from harness.load import TOGETHER
from harness.sockets import NS
from harness.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Load", "NothingArrivesError", "Passage", "loading"]

SO_RCVBUFFORCE: Final = 33
SINK_BUFFER: Final = 64 << 20  # bytes: what the sink has no time for yet is not the path's loss
ARRIVES_WITHIN_S: Final = 2.0
QUIET_S: Final = 0.2  # nothing more has come for so long: nothing more will
LOOK_S: Final = 0.01
PATIENCE_S: Final = 30.0
MARKS: Final = 256


class NothingArrivesError(Exception):
    """Not one datagram came through the path."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What became of one load. Lost is what reached neither the sink nor its full buffer."""

    sent: int
    lost: int
    late_slots: int
    reached_per_s: float  # what the sender made of the rate that it was asked for


class Load:
    """A sender and a sink at the two ends of a path."""

    def __init__(self, sender: Worker, sink: Worker) -> None:
        self._sender, self._sink = sender, sink
        self._loads = 0
        self._dropped = 0

    def pids(self) -> list[int]:
        """The sender and the sink."""
        return [self._sender.pid, self._sink.pid]

    def send(self, *, rate_per_s: int, count: int, wait: Literal["spin", "sleep"]) -> Passage:
        """That many datagrams on an absolute schedule; returns when the last has arrived, or will not any more.

        The sender waits for a slot either spinning, which is punctual, or asleep, which costs no CPU time. Raises
        RuntimeError if more arrive than were sent.
        """
        self._loads = (self._loads + 1) % MARKS
        self._sender.tell(f"{wait} {self._loads} {rate_per_s} {count}")
        report = self._sender.read(timeout_s=count / rate_per_s + PATIENCE_S)
        sent, took_ns = report["sent"], report["took_ns"]
        arrived = self._settled(sent)
        if arrived > sent:
            raise RuntimeError(f"{arrived} of {sent} datagrams arrived: the path makes more of them")
        return Passage(sent, sent - arrived, report["late_slots"], sent * NS / took_ns)

    def open(self) -> None:
        """Have the path know the flow; NothingArrivesError if it carries nothing."""
        give_up_s = time.monotonic() + ARRIVES_WITHIN_S
        while (tried := self.send(rate_per_s=1000, count=TOGETHER, wait="sleep")).lost == tried.sent:
            if time.monotonic() > give_up_s:
                raise NothingArrivesError(f"nothing came through within {ARRIVES_WITHIN_S:.0f} s")

    def _settled(self, sent: int) -> int:
        """How many of this load came as far as the sink's socket, once that changes no more."""
        before, counted = self._dropped, self._counted()
        changed_s = time.monotonic()
        while counted["arrived"] + counted["dropped"] - before < sent and time.monotonic() < changed_s + QUIET_S:
            time.sleep(LOOK_S)
            now = self._counted()
            if now != counted:
                counted, changed_s = now, time.monotonic()
        self._dropped = counted["dropped"]
        return int(counted["arrived"] + self._dropped - before)

    def _counted(self) -> dict[str, Any]:
        self._sink.tell(f"count {self._loads}")
        return self._sink.read(timeout_s=PATIENCE_S)


@contextmanager
def loading(asking: socket.socket, serving: socket.socket) -> Iterator[Load]:
    """A sender on the first core and a sink on the last, on a path's sockets. Raises NothingArrivesError."""
    serving.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SINK_BUFFER)
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        sender, sink = (
            stack.enter_context(_started(role, sock, core))
            for role, sock, core in (("load", asking, cores[0]), ("sink", serving, cores[-1]))
        )
        load = Load(sender, sink)
        load.open()
        yield load


def _started(role: str, sock: socket.socket, core: int) -> Worker:
    return Worker.start(role, {"core": core}, where="a path", fds=[sock.fileno()]).await_ready()
