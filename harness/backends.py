"""The backend worker: UDP echo with a service time, sink, push, and TCP echo.

It stamps who it is on what it sends and logs every datagram that it saw, in a file that survives
`kill -9`. Standard library only.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from typing import Any, Final

from harness import wire
from harness.haste import hurry
from harness.mmsg import Batch
from harness.records import CORRUPT, FOREIGN, HEADER, PUSHED, REPLIED_OFFSET, SEEN, SENT, Log
from harness.sockets import CONTROL_SIZE, NS, af, drops, received_ns, udp
from harness.worker import Orders, say

__all__ = ["Backend", "Client", "Reply", "serve"]

STDIN: Final = 0
BURST: Final = 64
TCP_FRAME: Final = wire.MIN_PAYLOAD


class Reply:
    """One answer that is due: where it goes and which log entry it completes."""

    __slots__ = ("address", "data", "due_ns", "index", "sock")

    def __init__(self, due_ns: int, index: int, sock: socket.socket, data: bytes, address: Any) -> None:
        self.due_ns = due_ns
        self.index = index
        self.sock = sock
        self.data = data
        self.address = address


class Client:
    """One whom a push backend serves: the socket it came to, its flow, the next number."""

    __slots__ = ("flow", "heard_ns", "next_ns", "seq", "size", "stream")

    def __init__(self, stream: int, flow: int, size: int, now_ns: int) -> None:
        self.stream = stream
        self.flow = flow
        self.size = size
        self.seq = 0
        self.heard_ns = self.next_ns = now_ns


class Backend:
    """One backend on one or more ports; everything happens in `run`."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.who: int = spec["who"]
        self.run_id: int = spec["run"]
        self.kind: str = spec.get("kind", "echo")
        self.service_ns = int(spec.get("service_ms", 0) * 1_000_000)
        self.log = Log(spec["log"], SEEN, spec["capacity"])
        self.gone_after_ns = int(spec.get("gone_after_ms", 2000) * 1_000_000)  # a client that is pushed to, in silence
        self.push_interval_ns = int(NS / spec.get("push_rate_per_s", 100))
        self.epoll = select.epoll()
        self.epoll.register(STDIN, select.EPOLLIN)
        self.sockets: dict[int, tuple[socket.socket, int, int]] = {}
        self.listeners: dict[int, tuple[socket.socket, int, int]] = {}
        self.connections: dict[int, tuple[socket.socket, bytearray, int, int]] = {}
        self.pending: deque[Reply] = deque()
        self.clients: dict[tuple[int, Any], Client] = {}
        self.send_errors: dict[str, int] = {}
        self.ready_s = 0.0
        self.batch = Batch(BURST * 4, 2048, control=True) if self.kind == "sink" else None
        for listen in spec["listen"]:
            self._listen(listen, spec.get("rcvbuf"))

    def _listen(self, listen: dict[str, Any], rcvbuf: int | None) -> None:
        family, port, address = listen["family"], listen["port"], listen.get("address", "")
        if listen.get("protocol", "udp") == "udp":
            sock = udp(family, address, port, rcvbuf=rcvbuf)
            self.sockets[sock.fileno()] = (sock, family, port)
        else:
            sock = socket.socket(af(family), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, port))
            sock.listen(1024)
            self.listeners[sock.fileno()] = (sock, family, port)
        self.epoll.register(sock.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Serve until `stop`, or until the owner is gone."""
        orders = Orders()
        if self.batch is not None:
            hurry()
        say({"ready": True, "who": self.who})
        self.ready_s = time.process_time()
        while True:
            # select(2) waits with microseconds, epoll_wait(2) only with milliseconds.
            select.select([self.epoll], [], [], self._wait_s())
            for fd, _ in self.epoll.poll(0):
                if fd == STDIN:
                    for line in orders.read():
                        if line == "stop":
                            say(self.report())
                            return
                        if line.startswith("pause "):
                            time.sleep(int(line.split()[1]) / 1000)
                    if orders.closed:
                        return
                elif fd in self.sockets:
                    self._udp_ready(*self.sockets[fd])
                elif fd in self.listeners:
                    self._accept(*self.listeners[fd])
                else:
                    self._tcp_ready(fd)
            self._answer_due()
            if self.clients:
                self._push_due()

    def report(self) -> dict[str, Any]:
        """What the log cannot say: drops by socket, send errors, overflow, processor time since it was ready."""
        return {
            "who": self.who,
            "cpu_s": time.process_time() - self.ready_s,
            "seen": self.log.count,
            "overflowed": self.log.overflowed,
            "pending": len(self.pending),
            "send_errors": self.send_errors,
            "drops": [
                {"family": family, "port": port, "drops": drops(sock)} for sock, family, port in self.sockets.values()
            ],
        }

    def _wait_s(self) -> float | None:
        due = [self.pending[0].due_ns] if self.pending else []
        due += [min(client.next_ns for client in self.clients.values())] if self.clients else []
        return max(0.0, (min(due) - time.time_ns()) / NS) if due else None

    def _udp_ready(self, sock: socket.socket, family: int, port: int) -> None:
        if self.batch is not None:
            self._sink(self.batch, sock, family, port)
            return
        for _ in range(BURST):
            try:
                data, control, _, address = sock.recvmsg(wire.MAX_PAYLOAD + 1, CONTROL_SIZE)
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            came_ns = received_ns(control)
            index = self._log(data, came_ns, port, family)
            if self.kind == "push":
                self._learn(sock, data, address, came_ns)
                continue
            if len(data) > wire.WHO_OFFSET:
                data = wire.stamped(data, self.who)
            reply = Reply(came_ns + self.service_ns, index, sock, data, address)
            if self.service_ns:
                self.pending.append(reply)
            else:
                self._answer(reply)

    def _log(self, data: bytes, came_ns: int, port: int, family: int) -> int:
        probe = wire.decode(data, self.run_id)
        if probe is None:
            return self.log.append(0, 0, 0, came_ns, 0, port, family, FOREIGN)
        flags = 0 if probe.intact else CORRUPT
        return self.log.append(probe.stream, probe.flow, probe.seq, came_ns, 0, port, family, flags)

    def _answer_due(self) -> None:
        now = time.time_ns()
        while self.pending and self.pending[0].due_ns <= now:
            self._answer(self.pending.popleft())

    def _answer(self, reply: Reply) -> None:
        if self._send(reply.sock, reply.data, reply.address) and reply.index >= 0:
            offset = HEADER.size + reply.index * SEEN.size + REPLIED_OFFSET
            SENT.pack_into(self.log.map, offset, time.time_ns())

    def _send(self, sock: socket.socket, data: bytes, address: Any) -> bool:
        try:
            if address is None:  # a connection
                return sock.send(data) == len(data)
            sock.sendto(data, address)
        except OSError as error:
            name = type(error).__name__ if error.errno is None else f"errno {error.errno}"
            self.send_errors[name] = self.send_errors.get(name, 0) + 1
            return False
        return True

    def _sink(self, batch: Batch, sock: socket.socket, family: int, port: int) -> None:
        """The same log, written for 200,000 datagrams a second: no objects but integers."""
        count = batch.receive(sock)
        log, run_id, stride, data = self.log, self.run_id, batch.size, batch.data
        unpack, append = wire.HEADER.unpack_from, log.append
        for index in range(count):
            offset, length = index * stride, batch.length(index)
            came_ns = batch.received_ns(index)
            if length < wire.BODY_OFFSET:
                append(0, 0, 0, came_ns, 0, port, family, FOREIGN)
                continue
            magic, _, _, of_run, stream, flow, seq = unpack(data, offset)
            if magic != wire.MAGIC or of_run != run_id:
                append(0, 0, 0, came_ns, 0, port, family, FOREIGN)
                continue
            flags = 0 if wire.intact(data[offset : offset + min(length, stride)]) else CORRUPT
            append(stream, flow, seq, came_ns, 0, port, family, flags)

    def _learn(self, sock: socket.socket, data: bytes, address: Any, now_ns: int) -> None:
        probe = wire.decode(data, self.run_id)
        if probe is None:
            return
        key = (sock.fileno(), address)
        if key not in self.clients:
            self.clients[key] = Client(probe.stream, probe.flow, len(data), now_ns)
        self.clients[key].heard_ns = now_ns

    def _push_due(self) -> None:
        now = time.time_ns()
        for key, client in list(self.clients.items()):
            if now - client.heard_ns > self.gone_after_ns:
                del self.clients[key]
                continue
            while client.next_ns <= now:
                sock, family, port = self.sockets[key[0]]
                data = wire.encode_unchecked(
                    self.run_id, client.stream, client.flow, client.seq, client.size, self.who, wire.PUSH
                )
                # Logged as not sent first: killed in between, the log owes nobody a datagram.
                index = self.log.append(client.stream, client.flow, client.seq, 0, 0, port, family, PUSHED)
                self._answer(Reply(0, index, sock, data, key[1]))
                client.seq += 1
                client.next_ns += self.push_interval_ns

    def _accept(self, listener: socket.socket, family: int, port: int) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections[connection.fileno()] = (connection, bytearray(), family, port)
        self.epoll.register(connection.fileno(), select.EPOLLIN)

    def _tcp_ready(self, fd: int) -> None:
        connection, buffer, family, port = self.connections[fd]
        try:
            data = connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            del self.connections[fd]
            connection.close()
            return
        buffer += data
        now = time.time_ns()
        while len(buffer) >= TCP_FRAME:
            frame = bytes(buffer[:TCP_FRAME])
            del buffer[:TCP_FRAME]
            index = self._log(frame, now, port, family)
            reply = Reply(now + self.service_ns, index, connection, wire.stamped(frame, self.who), None)
            self.pending.append(reply)


def serve(spec: dict[str, Any]) -> None:
    """Be the backend that `spec` describes until told to stop."""
    Backend(spec).run()
