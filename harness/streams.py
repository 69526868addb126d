"""The client worker: steady streams on one absolute schedule, and what came back.

A sender thread sleeps to each slot; late slots are sent late, never skipped. A receiver thread logs
every arrival with the kernel's time. Standard library only.
"""

from __future__ import annotations

import heapq
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from harness import senders, wire
from harness.haste import hurry
from harness.records import CORRUPT, FOREIGN, PUSHED, RECEIVED, WRONG_FLOW, WRONG_SOURCE, Log, SentLog
from harness.sockets import CONTROL_SIZE, NS, af, drops, received_ns, udp
from harness.worker import Orders, say

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Ear", "Ears", "Stream", "obey", "send_streams", "stream"]

RETRIES: Final = 8
BURST: Final = 32
CLOSING_S: Final = 0.02  # how often to look for sockets that have served


class Ear(NamedTuple):
    """A socket that replies are awaited on, and what they must look like."""

    sock: socket.socket
    stream: int
    flow: int
    expected: tuple[str, int] | None  # None: the kernel checks (connected)


class Ears:
    """All sockets of this worker; the sender opens, the receiver reads and closes."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._run: int = spec["run"]
        self._linger_ns = int(spec["linger_ms"] * 1_000_000)
        self._log = Log(spec["log"], RECEIVED, spec["capacity"])
        self._epoll = select.epoll()
        self._by_fd: dict[int, Ear] = {}
        self._leaving: deque[tuple[int, Ear]] = deque()
        self._closes = any(one["pattern"] == "fresh" for one in spec["streams"])
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)
        self.drops: dict[int, int] = {stream["id"]: 0 for stream in spec["streams"]}
        self.errors: dict[str, int] = {}
        self.until_ns: int | None = None  # no slot that is due from then on is sent
        self._paused_until_ns = 0
        self._end_ns: int | None = None

    def open(self, stream: dict[str, Any], flow: int, *, connected: bool) -> Ear:
        """A socket for one flow, already listened on."""
        source = stream.get("source", "")
        sock = udp(stream["family"], source, senders.source_port(stream, flow), rcvbuf=stream.get("rcvbuf"))
        target = (stream["address"], stream["port"])
        if connected:
            sock.connect(target)
        ear = Ear(sock, stream["id"], flow, None if connected else target)
        self._by_fd[sock.fileno()] = ear
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return ear

    def leave(self, ear: Ear) -> None:
        """Close a socket once its answer has had time to come."""
        self._leaving.append((time.time_ns() + self._linger_ns, ear))

    def pause(self, duration_ms: int) -> None:
        """Read nothing for so long; the buffers fill meanwhile."""
        self._paused_until_ns = time.time_ns() + duration_ms * 1_000_000
        os.eventfd_write(self._bell, 1)

    def finish(self) -> None:
        """The last slot is out: listen for `linger_ms` more."""
        self._end_ns = time.time_ns() + self._linger_ns
        os.eventfd_write(self._bell, 1)

    def listen(self) -> None:
        """Log arrivals until `linger_ms` after the last slot; wake for little else, a sender needs the interpreter."""
        while self._end_ns is None or time.time_ns() < self._end_ns:
            self._read_ready(self._quiet_s())
            while time.time_ns() < self._paused_until_ns:
                time.sleep(0.001)
            now = time.time_ns()
            while self._leaving and self._leaving[0][0] <= now:
                self._close(self._leaving.popleft()[1])
        self._read_ready(0)
        for ear in list(self._by_fd.values()):
            self._close(ear)

    def report(self) -> dict[str, Any]:
        """What the log cannot say."""
        return {"received": self._log.count, "overflowed": self._log.overflowed, "errors": self.errors}

    def _quiet_s(self) -> float | None:
        """How long there is nothing to do but to read; None until the bell rings."""
        if self._end_ns is not None:
            return max(0.0, (self._end_ns - time.time_ns()) / NS)
        return CLOSING_S if self._closes else None

    def _read_ready(self, timeout_s: float | None) -> None:
        for fd, _ in self._epoll.poll(timeout_s):
            if fd == self._bell:
                os.eventfd_read(self._bell)
            ear = self._by_fd.get(fd)
            if ear is not None:
                self._read(ear)

    def _read(self, ear: Ear) -> None:
        sock, expected = ear.sock, ear.expected
        for _ in range(BURST):
            try:
                data, control, _, address = sock.recvmsg(wire.MAX_PAYLOAD + 1, CONTROL_SIZE)
            except BlockingIOError:
                return
            except OSError as error:  # an ICMP error, on a connected socket
                name = f"recv errno {error.errno}"
                self.errors[name] = self.errors.get(name, 0) + 1
                continue
            came_ns = received_ns(control)
            flags = 0 if expected is None or (address[0], address[1]) == expected else WRONG_SOURCE
            probe = wire.decode(data, self._run)
            if probe is None:
                self._log.append(ear.stream, ear.flow, 0, came_ns, 0, flags | FOREIGN)
                continue
            if probe.stream != ear.stream or probe.flow != ear.flow:
                flags |= WRONG_FLOW
            if not probe.intact:
                flags |= CORRUPT
            if probe.kind == wire.PUSH:
                flags |= PUSHED
            self._log.append(probe.stream, probe.flow, probe.seq, came_ns, probe.who, flags)

    def _close(self, ear: Ear) -> None:
        self._read(ear)
        self.drops[ear.stream] += drops(ear.sock)
        del self._by_fd[ear.sock.fileno()]
        ear.sock.close()


class Stream:
    """One stream's sending end."""

    def __init__(self, spec: dict[str, Any], run: int, ears: Ears) -> None:
        self.spec = spec
        self.id: int = spec["id"]
        self.count: int = spec["count"]
        self.sent = SentLog(spec["sent_log"], self.count)
        self.errors: dict[str, int] = {}
        self.slots = self.count  # those that its schedule had, when it ended
        self.stolen_slots = 0
        self._run = run
        self._ears = ears
        self._connected = bool(spec.get("connected", True))
        self._fresh = spec["pattern"] == "fresh"
        self._target = (spec["address"], spec["port"])
        self._raw: socket.socket | None = None
        self._packets: list[list[bytes]] = []
        self.batched = spec["sender"] == "batch"
        self._datagrams = senders.batch_datagrams(spec, run) if self.batched else b""
        wire.encode(run=run, stream=self.id, flow=0, seq=0, size=spec["payload"])  # refuses a bad size
        if spec["sender"] == "scapy":
            self._packets = senders.scapy_packets(spec, run)
            self._raw = senders.raw_socket(spec["family"])
            self._connected = False
        if self.batched and (self._fresh or spec["flows"] != 1):
            raise ValueError(f"stream {self.id}: a batch sender has one long flow")
        flows = 0 if self._fresh else spec["flows"]
        self._flows = [ears.open(spec, flow, connected=self._connected) for flow in range(flows)]
        self._next: Ear | None = None
        self.prepare(0)

    def due_ns(self, seq: int, t0_ns: int) -> int:
        """When slot `seq` is due; the same arithmetic as the ledger's."""
        return t0_ns + int(self.spec.get("phase_ns", 0)) + seq * NS // int(self.spec["rate_per_s"])

    def prepare(self, seq: int) -> None:
        """Open the next fresh flow's socket ahead of its slot."""
        if self._fresh and seq < self.count:
            self._next = self._ears.open(self.spec, seq, connected=self._connected)

    def send(self, seq: int) -> None:
        """Send slot `seq` now and note when; a refusal is counted and leaves the slot unsent."""
        flow = senders.flow_of(self.spec, seq)
        ear = self._next if self._next is not None else self._flows[flow]
        data = wire.encode_unchecked(self._run, self.id, flow, seq, self.spec["payload"], 0, 0)
        if self._try(ear, data, seq):
            self.sent.times[seq] = time.time_ns()
        if self._fresh:
            self._ears.leave(ear)
            self.prepare(seq + 1)

    def send_all(self, t0_ns: int) -> None:
        """Send the whole stream in batches."""
        hurry()
        outcome = senders.send_batches(self.spec, self._datagrams, t0_ns, self._flows[0].sock, self.sent.times)
        self.stolen_slots = outcome.stolen_slots
        if outcome.refused:
            self.errors["refused"] = outcome.refused

    def report(self, t0_ns: int) -> dict[str, Any]:
        """Sent, refused, and how late, from the schedule."""
        late = sorted(at - self.due_ns(seq, t0_ns) for seq, at in enumerate(self.sent.times) if at)
        return {
            "id": self.id,
            "sent": len(late),
            "slots": self.slots,
            "send_errors": self.errors,
            "late_p99_us": late[len(late) * 99 // 100] / 1000 if late else None,
            "late_slots": sum(1 for by in late if by > senders.LATE_NS),
            "stolen_slots": self.stolen_slots,
            "drops": self._ears.drops[self.id],
        }

    def _try(self, ear: Ear, data: bytes, seq: int) -> bool:
        for _ in range(RETRIES):
            try:
                if self._raw is not None:
                    for packet in self._packets[seq]:
                        self._raw.sendto(packet, (self._target[0], 0))
                elif ear.expected is None:
                    ear.sock.send(data)
                else:
                    ear.sock.sendto(data, self._target)
            except OSError as error:
                name = f"errno {error.errno}"
                self.errors[name] = self.errors.get(name, 0) + 1
                # The refusal answers an earlier datagram; this one has not left yet.
                if isinstance(error, ConnectionRefusedError | BlockingIOError):
                    continue
                return False
            return True
        return False


def send_streams(streams: list[Stream], t0_ns: int, ears: Ears) -> None:
    """Send every slot of every stream in the order in which they are due, up to `ears.until_ns`."""
    threads = [threading.Thread(target=stream.send_all, args=(t0_ns,)) for stream in streams if stream.batched]
    for thread in threads:
        thread.start()
    queue = [
        (stream.due_ns(0, t0_ns), number, 0)
        for number, stream in enumerate(streams)
        if not stream.batched and stream.count
    ]
    heapq.heapify(queue)
    while queue:
        due, number, seq = queue[0]
        while (ahead := due - time.time_ns()) > 0:
            time.sleep(ahead / NS)
        if ears.until_ns is not None and due >= ears.until_ns:
            break
        stream = streams[number]
        stream.send(seq)
        if seq + 1 < stream.count:
            heapq.heapreplace(queue, (stream.due_ns(seq + 1, t0_ns), number, seq + 1))
        else:
            heapq.heappop(queue)
    for _, number, seq in queue:
        streams[number].slots = seq
    for thread in threads:
        thread.join()


def stream(spec: dict[str, Any]) -> None:
    """Be the client that `spec` describes: ready, go, report."""
    # The receiver must not hold the interpreter while a slot falls due.
    sys.setswitchinterval(0.0002)
    for one in spec["streams"]:
        # Arrivals are compared with the address as the kernel writes it.
        one["address"] = socket.inet_ntop(af(one["family"]), socket.inet_pton(af(one["family"]), one["address"]))
    ears = Ears(spec)
    streams = [Stream(one, spec["run"], ears) for one in spec["streams"]]
    say({"ready": True})
    ready_s = time.process_time()

    def perform(t0_ns: int) -> None:
        def send() -> None:
            send_streams(streams, t0_ns, ears)
            ears.finish()

        sender = threading.Thread(target=send)
        receiver = threading.Thread(target=ears.listen)
        receiver.start()
        sender.start()
        sender.join()
        receiver.join()
        cpu_s = time.process_time() - ready_s
        say({"streams": [one.report(t0_ns) for one in streams], "cpu_s": cpu_s, **ears.report()})
        os._exit(0)  # the main thread is blocked on the owner's next order

    obey(ears, perform)


def obey(ears: Ears, perform: Callable[[int], None]) -> None:
    """Follow the owner's orders; the owner gone, end at once."""
    orders = Orders()
    while True:
        for line in orders.read():
            order, _, argument = line.partition(" ")
            if order == "go":
                threading.Thread(target=perform, args=(int(argument),), daemon=True).start()
            elif order == "until":
                ears.until_ns = int(argument)
            elif order == "pause":
                ears.pause(int(argument))
            elif order == "stop":
                os._exit(0)
        if orders.closed:
            os._exit(0)
