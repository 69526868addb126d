"""Many live flows through one port, each opened by a datagram of its own within seconds.

The packets are built whole and leave on a raw socket, from addresses that nobody has: what is answered goes back to the
outside and ends there, so no flow needs a socket.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.mmsg import Batch
from harness.senders import raw_socket
from harness.topology import OUTSIDE_AND_HOST, Route

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.netns import Namespace, Net

__all__ = ["CLIENTS", "CROWDED", "MOST", "open_flows", "packets"]

CLIENTS: Final = IPv4Network("198.18.0.0/15")  # for benchmarks: RFC 2544, appendix C.2.2
CROWDED: Final = replace(
    OUTSIDE_AND_HOST,
    name="crowded",
    routes=(Route(OUTSIDE_AND_HOST.host, str(CLIENTS), OUTSIDE_AND_HOST.source("outside", 4)),),
)
TARGET: Final = CROWDED.target("outside", 4)
MOST: Final = 250_000  # below nf_conntrack_max of a small host
FIRST_PORT: Final = 10_000
PORTS: Final = 50_000  # of each address
ALIVE_S: Final = 3600  # longer than any measurement
TRIES: Final = 3
SLOTS: Final = 256

# RFC 791 and RFC 768; the kernel fills in the header's checksum (raw(7)), and a UDP checksum of 0 is none.
PACKET: Final = np.dtype(
    [
        *(("version", "u1"), ("service", "u1"), ("length", ">u2"), ("id", ">u2"), ("fragment", ">u2")),
        *(("ttl", "u1"), ("protocol", "u1"), ("checksum", ">u2"), ("source", ">u4"), ("destination", ">u4")),
        *(("source_port", ">u2"), ("destination_port", ">u2"), ("udp_length", ">u2"), ("udp_checksum", ">u2")),
        ("payload", "u1"),
    ]
)
IP_HEADER: Final = 20


def open_flows(net: Net, *, port: int, flows: int, tracked: bool) -> None:
    """Let so many flows from outside to a port of the host be live; those that are, stay as they are.

    `tracked`: the host's conntrack holds an entry for each, which then outlives any measurement; where it does not
    know its flows nothing can be counted. Raises RuntimeError when entries are missing.
    """
    if not tracked:
        _send(net[CROWDED.outside], packets(flows, port))
        return
    host = net[CROWDED.host]
    _keep_entries(host)
    for _ in range(TRIES):
        if _entries(host) >= flows:
            return
        _send(net[CROWDED.outside], packets(flows, port))
    if (found := _entries(host)) < flows:
        raise RuntimeError(f"conntrack holds {found} entries, {flows} flows were opened")


def packets(flows: int, port: int) -> NDArray[Any]:
    """The first datagram of each flow to a port of the host, as the IP packets that carry them."""
    if flows > MOST:
        raise ValueError(f"{flows} flows are more than {MOST}")
    numbers = np.arange(flows)
    made = np.zeros(flows, PACKET)
    made["version"], made["ttl"], made["protocol"] = 0x45, 64, socket.IPPROTO_UDP
    made["length"], made["udp_length"] = PACKET.itemsize, PACKET.itemsize - IP_HEADER
    made["source"] = int(CLIENTS[1]) + numbers // PORTS
    made["source_port"] = FIRST_PORT + numbers % PORTS
    made["destination"], made["destination_port"] = int(IPv4Address(TARGET)), port
    return made


def _send(outside: Namespace, made: NDArray[Any]) -> None:
    """Send the packets, as fast as they go."""
    batch = Batch(SLOTS, PACKET.itemsize)
    with outside.entered(), raw_socket(4) as sock:
        sock.connect((TARGET, 0))
        at = 0
        while at < len(made):
            data = made[at : at + SLOTS].tobytes()
            batch.data[: len(data)] = data
            at += batch.send(sock, len(data) // PACKET.itemsize)


def _keep_entries(host: Namespace) -> None:
    with host.entered():
        for name in ("udp_timeout", "udp_timeout_stream"):
            Path(f"/proc/sys/net/netfilter/nf_conntrack_{name}").write_text(str(ALIVE_S), encoding="ascii")


def _entries(host: Namespace) -> int:
    """How many entries conntrack has of this host alone."""
    with host.entered():
        return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text(encoding="ascii"))
