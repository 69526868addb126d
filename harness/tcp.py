"""The TCP client worker: connections kept open across a swap, and new ones all the while.

Counts resets, timeouts and which backend answered each. Standard library only.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Any, Final

from harness import wire
from harness.sockets import NS, af
from harness.worker import Orders, say

__all__ = ["Client", "Connection", "connect"]

STDIN: Final = 0
FRAME: Final = wire.MIN_PAYLOAD
LOOKS: Final = 20  # between one request and the next


class Connection:
    """One connection with at most one request under way."""

    def __init__(self, number: int, spec: dict[str, Any], *, kept: bool, now_ns: int) -> None:
        self.number = number
        self.kept = kept
        self.opened_ns = now_ns
        self.asked_ns = 0
        self.seq = 0
        self.got = b""
        self.who: list[int] = []
        self.end = "open"
        self.sock = socket.socket(af(spec["family"]), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if spec.get("source"):
            self.sock.bind((spec["source"], 0))
        self.sock.connect_ex((spec["address"], spec["port"]))

    def report(self) -> dict[str, Any]:
        """Which backends answered, in order of change, how often, and how it ended."""
        changes = [who for place, who in enumerate(self.who) if place == 0 or self.who[place - 1] != who]
        return {
            "kept": self.kept,
            "opened_ns": self.opened_ns,
            "answers": len(self.who),
            "who": changes,
            "end": self.end,
        }


class Client:
    """Kept connections that ask at a rate, and one new connection every so often."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.interval_ns = int(NS / spec["rate_per_s"])
        self.new_every_ns = int(spec["new_every_ms"] * 1_000_000)
        # Often enough for requests to be about in time; answers wake it at once.
        self.look_s = min(self.interval_ns, self.new_every_ns) / LOOKS / NS
        self.timeout_ns = int(spec.get("timeout_ms", 2000) * 1_000_000)
        self.epoll = select.epoll()
        self.epoll.register(STDIN, select.EPOLLIN)
        self.live: dict[int, Connection] = {}
        self.all: list[Connection] = []
        self.orders = Orders()
        self.t0_ns = 0

    def perform(self) -> None:
        """Ready, go, report."""
        for _ in range(self.spec["connections"]):
            self._open(kept=True)
        say({"ready": True})
        t0_ns = self.t0_ns = self._await_go()
        end_ns = t0_ns + int(self.spec["duration_ms"] * 1_000_000)
        next_new = t0_ns
        stopped = False
        while (now := time.time_ns()) < end_ns + self.timeout_ns:
            if now >= end_ns or stopped:
                if not any(one.asked_ns for one in self.live.values()):
                    break
            elif now >= t0_ns:
                if now >= next_new:
                    self._ask(self._open(kept=False), now)
                    next_new += self.new_every_ns
                self._ask_due(t0_ns, now)
            self._expire(now)
            for fd, _ in self.epoll.poll(self.look_s):
                if fd == STDIN:
                    stopped |= "stop" in self.orders.read()
                    if self.orders.closed:
                        os._exit(0)
                elif fd in self.live:
                    self._readable(self.live[fd])
        say({"connections": [one.report() for one in self.all], **self.totals()})

    def totals(self) -> dict[str, int]:
        """Counts over all connections."""
        ends = [one.end for one in self.all]
        return {
            "opened": len(self.all),
            "answers": sum(len(one.who) for one in self.all),
            "resets": ends.count("reset"),
            "closed_by_peer": ends.count("closed"),
            "refused": ends.count("refused"),
            "timeouts": ends.count("timeout"),
        }

    def _await_go(self) -> int:
        while True:
            for line in self.orders.read():
                if line.startswith("go "):
                    return int(line.split()[1])
            if self.orders.closed:
                os._exit(0)

    def _open(self, *, kept: bool) -> Connection:
        one = Connection(len(self.all), self.spec, kept=kept, now_ns=time.time_ns())
        self.all.append(one)
        self.live[one.sock.fileno()] = one
        self.epoll.register(one.sock.fileno(), select.EPOLLIN)
        return one

    def _ask_due(self, t0_ns: int, now: int) -> None:
        for one in list(self.live.values()):
            if one.kept and not one.asked_ns and now >= t0_ns + one.seq * self.interval_ns:
                self._ask(one, now)

    def _ask(self, one: Connection, now: int) -> None:
        run, stream = self.spec["run"], self.spec.get("id", 0)
        one.asked_ns = now
        try:
            one.sock.send(wire.encode_unchecked(run, stream, one.number, one.seq, FRAME, 0, 0))
        except BlockingIOError:
            one.asked_ns = 0  # still connecting: asked again in the next round
            return
        except OSError as error:
            self._close(one, _end(error))
            return
        one.seq += 1

    def _readable(self, one: Connection) -> None:
        try:
            data = one.sock.recv(1 << 12)
        except BlockingIOError:
            return
        except OSError as error:
            self._close(one, _end(error))
            return
        if not data:
            self._close(one, "closed")
            return
        one.got += data
        if len(one.got) < FRAME:
            return
        probe = wire.decode(one.got[:FRAME], self.spec["run"])
        one.got = one.got[FRAME:]
        one.asked_ns = 0
        if probe is None or not probe.intact or probe.flow != one.number:
            self._close(one, "corrupted")
            return
        one.who.append(probe.who)
        if not one.kept:
            self._close(one, "done")

    def _expire(self, now: int) -> None:
        for one in list(self.live.values()):
            # One that never got to ask is timed from when it could have.
            since = one.asked_ns or (0 if one.seq else max(one.opened_ns, self.t0_ns))
            if since and now - since > self.timeout_ns:
                self._close(one, "timeout")
            elif not one.kept and not one.seq:
                self._ask(one, now)

    def _close(self, one: Connection, end: str) -> None:
        one.end = end
        del self.live[one.sock.fileno()]
        one.sock.close()


def _end(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "reset" if isinstance(error, ConnectionResetError | BrokenPipeError) else f"errno {error.errno}"


def connect(spec: dict[str, Any]) -> None:
    """Be the TCP client that `spec` describes."""
    Client(spec).perform()
