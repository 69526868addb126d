"""Conntrack flows: list, count and delete, by zone or by public port, over one netlink socket.

A dump asks the kernel to filter (tuple filters from 5.8, zones from 6.8) and filters again here, so an older
kernel costs time and never correctness. Only what Swapper needs is decoded: 10,000 flows take about 0.1 s, where
a general decoder takes more than one. Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from swapper.errors import KernelRefusedError, MissingError
from swapper.model import FAMILIES, Family, Protocol
from swapper.nfnetlink import NESTED, NLM_F_ACK, attribute, dump, opened, send

__all__ = ["Flow", "by_public_port", "delete", "flush", "in_zone"]

CT_NEW, CT_GET, CT_DELETE = 0x100, 0x101, 0x102

CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ZONE, CTA_FILTER = 1, 2, 18, 25
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST = 1, 2, 3, 4
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_FILTER_ORIG_FLAGS = 1
MATCH_PROTO_NUM, MATCH_PROTO_DST_PORT = 1 << 3, 1 << 5

# A tuple: nest, address nest, source, destination, protocol nest, number, source port, destination port.
NLMSG_SIZE, MESSAGE_SIZE = 16, 20
TUPLE_LAYOUTS: dict[tuple[int, int], tuple[Family, struct.Struct]] = {
    (socket.AF_INET, 52): (4, struct.Struct(">12x4s4x4s8xB3x4xH2x4xH2x")),
    (socket.AF_INET6, 76): (6, struct.Struct(">12x16s4x16s8xB3x4xH2x4xH2x")),
}
PORTLESS_LENGTHS = {(socket.AF_INET, 60), (socket.AF_INET, 36), (socket.AF_INET6, 84), (socket.AF_INET6, 60)}
NATIVE_LENGTH, ATTRIBUTE = struct.Struct("=H"), struct.Struct("=HH")

AF: dict[Family, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
NUMBER = {Protocol.UDP: socket.IPPROTO_UDP, Protocol.TCP: socket.IPPROTO_TCP}


@dataclass(frozen=True, slots=True)
class Flow:
    """One conntrack entry: who asked (`src`, `sport`) for which public port, and which backend answers.

    Addresses are packed (4 or 16 bytes), so that ten thousand of them stay cheap; `text` spells one.
    """

    family: Family
    protocol: int
    src: bytes
    sport: int
    dst: bytes
    dport: int
    reply_src: bytes
    reply_sport: int
    zone: int

    def source_text(self) -> str:
        """The client's address as people write it."""
        return str(IPv4Address(self.src) if self.family == 4 else IPv6Address(self.src))


def in_zone(zone: int) -> list[Flow]:
    """Every flow of one conntrack zone, both families.

    Raises MissingError without CAP_NET_ADMIN or without conntrack in the kernel.
    """
    request = attribute(CTA_ZONE, struct.pack("!H", zone))
    return [flow for flow in _dump(socket.AF_UNSPEC, request) if flow.zone == zone]


def by_public_port(protocol: Protocol, public: int, *, zone: int = 0) -> list[Flow]:
    """The flows of `zone` that clients opened to a public port, both families; errors as `in_zone`."""
    number = NUMBER[protocol]
    proto = attribute(CTA_PROTO_NUM, bytes([number])) + attribute(CTA_PROTO_DST_PORT, struct.pack("!H", public))
    request = attribute(CTA_TUPLE_ORIG | NESTED, attribute(CTA_TUPLE_PROTO | NESTED, proto)) + attribute(
        CTA_FILTER | NESTED,
        attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", MATCH_PROTO_NUM | MATCH_PROTO_DST_PORT)),
    )
    return [
        flow
        for family in FAMILIES
        for flow in _dump(AF[family], request)
        if flow.protocol == number and flow.dport == public and flow.zone == zone
    ]


def delete(flows: list[Flow]) -> int:
    """Delete these entries; how many were still there."""
    deleted = 0
    with opened() as sock:
        for flow in flows:
            src, dst = (CTA_IP_V4_SRC, CTA_IP_V4_DST) if flow.family == 4 else (CTA_IP_V6_SRC, CTA_IP_V6_DST)
            tuple_orig = attribute(
                CTA_TUPLE_IP | NESTED, attribute(src, flow.src) + attribute(dst, flow.dst)
            ) + attribute(
                CTA_TUPLE_PROTO | NESTED,
                attribute(CTA_PROTO_NUM, bytes([flow.protocol]))
                + attribute(CTA_PROTO_SRC_PORT, struct.pack("!H", flow.sport))
                + attribute(CTA_PROTO_DST_PORT, struct.pack("!H", flow.dport)),
            )
            body = attribute(CTA_TUPLE_ORIG | NESTED, tuple_orig)
            if flow.zone:
                body += attribute(CTA_ZONE, struct.pack("!H", flow.zone))
            send(sock, CT_DELETE, NLM_F_ACK, AF[flow.family], body)
            error = _acknowledged(sock)
            if error not in (0, errno.ENOENT):
                raise KernelRefusedError(f"deleting a conntrack entry: {os.strerror(error)}")
            deleted += error == 0
    return deleted


def flush() -> None:
    """Delete every conntrack entry of this network namespace, whoever it belongs to (`conntrack -F`)."""
    with opened() as sock:
        send(sock, CT_DELETE, NLM_F_ACK, socket.AF_UNSPEC, b"")
        if error := _acknowledged(sock):
            raise KernelRefusedError(f"flushing conntrack: {os.strerror(error)}")


def _acknowledged(sock: socket.socket) -> int:
    """The errno of the kernel's answer, 0 for success."""
    return -int(struct.unpack_from("=i", sock.recv(65536), 16)[0])


def _dump(family: int, body: bytes) -> list[Flow]:
    try:
        return [flow for flow in dump(CT_GET, family, body, _decode) if flow is not None]
    except PermissionError as error:
        raise MissingError("reading conntrack needs CAP_NET_ADMIN: run as root (sudo swapper ...)") from error
    except OSError as error:
        raise KernelRefusedError(f"reading conntrack: {error.strerror}") from error


def _decode(data: bytes, start: int, end: int) -> Flow | None:
    """The flow of one message; None for a protocol without ports. Raises KernelRefusedError for a layout unknown here.

    The kernel writes the two tuples first, always in the same order, so their length says how to read them.
    """
    at = start + MESSAGE_SIZE
    (length,) = NATIVE_LENGTH.unpack_from(data, at)
    layout = TUPLE_LAYOUTS.get((data[start + NLMSG_SIZE], length))
    if layout is None:
        if (data[start + NLMSG_SIZE], length) in PORTLESS_LENGTHS:
            return None
        raise KernelRefusedError(f"this kernel writes conntrack tuples of {length} bytes, which Swapper cannot read")
    family, structure = layout
    src, dst, protocol, sport, dport = structure.unpack_from(data, at)
    reply_src, _, _, reply_sport, _ = structure.unpack_from(data, at + length)
    at += 2 * length
    zone = 0
    while at + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if kind & 0x3FFF == CTA_ZONE:
            zone = (data[at + 4] << 8) | data[at + 5]
            break
        at += (length + 3) & ~3
    return Flow(family, protocol, src, sport, dst, dport, reply_src, reply_sport, zone)
