"""The ways a stream's datagrams leave: scapy-built packets on raw sockets, and batches.

Standard library only, but for scapy, which is imported where it builds.
"""

from __future__ import annotations

import socket
import time
from array import array
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from harness import wire
from harness.mmsg import Batch
from harness.sockets import NS, af
from harness.steal import Steal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LATE_NS",
    "Outcome",
    "batch_datagrams",
    "flow_of",
    "raw_socket",
    "scapy_packets",
    "send_batches",
    "source_port",
]

MTU: Final = 1500
BATCH_SLOTS: Final = 256
PACE_NS: Final = 200_000  # one system call for what falls due in this time
ASLEEP_NS: Final = 2_000_000  # waking takes less
LATE_NS: Final = 1_000_000


class Outcome(NamedTuple):
    """How a batch stream went: sends that the kernel refused, slots that were late only because of the hypervisor."""

    refused: int
    stolen_slots: int


def raw_socket(family: int) -> socket.socket:
    """A socket that sends whole IP packets, headers included (raw(7), ipv6(7))."""
    sock = socket.socket(af(family), socket.SOCK_RAW, socket.IPPROTO_RAW)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    return sock


def scapy_packets(stream: dict[str, Any], run: int) -> list[list[bytes]]:
    """Every datagram of a stream as the packets that carry it, built by scapy; about 0.4 ms each."""
    # Here, not above: scapy costs a second, and reads the interfaces of its namespace at import.
    from scapy.layers.inet import IP, UDP, fragment
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
    from scapy.packet import Raw

    split4: Callable[..., list[Any]] = fragment
    split6: Callable[..., list[Any]] = fragment6
    packets = []
    mtu = 65536 if stream["address"] in {"127.0.0.1", "::1"} else MTU
    for seq in range(stream["count"]):
        flow = flow_of(stream, seq)
        payload = wire.encode(run=run, stream=stream["id"], flow=flow, seq=seq, size=stream["payload"])
        udp = UDP(sport=source_port(stream, flow), dport=stream["port"]) / Raw(payload)
        ends = {"src": stream["source"], "dst": stream["address"]}
        large = len(payload) + 48 > mtu
        if stream["family"] == 4:
            whole = IP(id=seq % 65535 + 1, **ends) / udp
            parts = split4(whole, fragsize=mtu - 20) if large else [whole]
        else:
            parts = split6(IPv6(**ends) / IPv6ExtHdrFragment(id=seq + 1) / udp, mtu) if large else [IPv6(**ends) / udp]
        packets.append([bytes(part) for part in parts])
    return packets


def flow_of(stream: dict[str, Any], seq: int) -> int:
    """Which flow datagram `seq` belongs to: one each if fresh, taking turns if long."""
    return seq if stream["pattern"] == "fresh" else seq % int(stream["flows"])


def source_port(stream: dict[str, Any], flow: int) -> int:
    """The source port of a flow; a fresh stream wraps around within its span."""
    return int(stream["first_port"]) + flow % int(stream.get("port_span") or 65536 - stream["first_port"])


def batch_datagrams(stream: dict[str, Any], run: int) -> bytes:
    """Every datagram of a batch stream, made before the schedule begins: encoding would make slots late."""
    size, stream_id = stream["payload"], stream["id"]
    return b"".join(wire.encode_unchecked(run, stream_id, 0, seq, size, 0, 0) for seq in range(stream["count"]))


def send_batches(stream: dict[str, Any], datagrams: bytes, t0_ns: int, sock: socket.socket, times: Any) -> Outcome:
    """Send one connected flow in batches, each slot when due, on a core of its own: it waits without sleeping.

    Writes each send time into `times`; 200,000/s is within reach of this loop: what a datagram costs is the kernel's.
    """
    size, rate, count = stream["payload"], stream["rate_per_s"], stream["count"]
    batch = Batch(BATCH_SLOTS, size)
    data = batch.data
    start = t0_ns + int(stream.get("phase_ns", 0))
    steal = Steal()
    seq = refused = stolen = 0

    def due(at_ns: int) -> int:
        return int(min(count, max(0, (at_ns - start) * rate // NS + 1)))

    next_ns = start
    while seq < count:
        now = steal.look()
        if now < next_ns:
            if next_ns - now > ASLEEP_NS:
                time.sleep((next_ns - now - ASLEEP_NS) / NS)
            continue
        many = min(due(now) - seq, BATCH_SLOTS)
        data[: many * size] = datagrams[seq * size : (seq + many) * size]
        try:
            went = batch.send(sock, many)
        except OSError:
            refused += 1
            if refused > count:
                break
            continue
        now = steal.look()
        times[seq : seq + went] = array("q", [now]) * went
        seq += went
        late, late_anyway = (min(seq, due(now - LATE_NS - by)) for by in (0, steal.stolen_ns))
        stolen += max(0, late - max(late_anyway, seq - went))
        if due(now) <= seq:
            steal.forget()
            next_ns = max(now + PACE_NS, start + seq * NS // rate)
    return Outcome(refused, stolen if steal.is_credible() else 0)
