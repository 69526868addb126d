"""One round trip, asked and timed around its system calls: on a socket that stays open, or on a new one each time.

Between the two readings of the clock is nothing but the system calls; all else is done before or after.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.netns import Namespace

__all__ = ["PATIENCE", "Asker", "ask"]

PATIENCE: Final = struct.pack("@ll", 1, 0)  # struct timeval
RESET: Final = struct.pack("@ii", 1, 0)  # struct linger: closing leaves no TIME_WAIT behind


def ask(sock: socket.socket, question: bytes, count: int) -> list[int]:
    """Ask the same that many times on a connected socket and await an answer as long; how long each took, in ns.

    Raises OSError for an exchange that fails, BlockingIOError for no answer within the socket's PATIENCE.
    """
    clock, send, receive = time.perf_counter_ns, sock.send, sock.recv
    size, whole = len(question), socket.MSG_WAITALL
    times = []
    for _ in range(count):
        began = clock()
        send(question)
        answer = receive(size, whole)
        times.append(clock() - began)
        _check(answer, size)
    return times


@dataclass(frozen=True, slots=True)
class Asker:
    """A client in its namespace: where it asks from, whom, and how many bytes each time.

    What asks raises OSError for an exchange that fails, BlockingIOError after a second without an answer.
    """

    where: Namespace
    source: str
    target: tuple[str, int]
    kind: socket.SocketKind
    payload: int

    def opened(self, port: int = 0) -> socket.socket:
        """A socket on this source port, not connected yet."""
        with self.where.entered():
            sock = socket.socket(socket.AF_INET, self.kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, PATIENCE)  # of connect(2) too; socket(7)
        if self.kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.bind((self.source, port))
        return sock

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """A connected socket on a port of the kernel's choice, open for the length of the block."""
        with self.opened() as sock:
            sock.connect(self.target)
            yield sock

    def ask(self, sock: socket.socket, count: int) -> list[int]:
        """That many exchanges on a connected socket; how long each took, in ns."""
        return ask(sock, b"x" * self.payload, count)

    def ask_anew(self, ports: range) -> list[int]:
        """One exchange from each of these source ports, on a socket of its own; how long each took, in ns.

        UDP: the first datagram of a flow and its answer. TCP: the connection, one request and its answer.
        """
        with ExitStack() as stack:
            socks = [stack.enter_context(self.opened(port)) for port in ports]
            if self.kind is socket.SOCK_STREAM:
                return [self._connect_and_ask(sock) for sock in socks]
            for sock in socks:
                sock.connect(self.target)  # sends nothing
            return [self.ask(sock, 1)[0] for sock in socks]

    def _connect_and_ask(self, sock: socket.socket) -> int:
        clock, connect, send, receive = time.perf_counter_ns, sock.connect, sock.send, sock.recv
        question, size, whole = b"x" * self.payload, self.payload, socket.MSG_WAITALL
        began = clock()
        connect(self.target)
        send(question)
        answer = receive(size, whole)
        took = clock() - began
        _check(answer, size)
        return took


def _check(answer: bytes, size: int) -> None:
    if len(answer) != size:
        raise ConnectionError(f"{len(answer)} bytes came back instead of {size}")
