"""What of Swapper's the kernel may hold, asked of the kernel itself: rules outlive the library or tool that made them.

So an engine that does not work here is passed over only where the kernel shows nothing of it. Knows names only.
Source: include/uapi/linux/netfilter/nf_tables.h, netfilter/ipset/ip_set.h and netfilter_ipv4/ip_tables.h.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from swapper import nfnetlink
from swapper.errors import KernelRefusedError
from swapper.model import DataplaneName, Engine

__all__ = ["Traces", "has_nf_tables", "ipsets", "read"]

NFT_GETTABLE, NFT_GETCHAIN, NFT_GETGEN = 0xA01, 0xA04, 0xA10
NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME = 1, 1, 3
NFPROTO_INET = 1
IPSET_LIST = 0x607
IPSET_ATTR_PROTOCOL, IPSET_ATTR_SETNAME, IPSET_ATTR_FLAGS = 1, 2, 6
IPSET_PROTOCOL_MIN, IPSET_FLAG_LIST_SETNAME = 6, 2
NET_BYTEORDER = 0x4000
SOL_IPV6 = 41
SO_GET_INFO, SO_GET_ENTRIES = 64, 65  # the same numbers for ip_tables and ip6_tables
INFO_SIZE, NAME_SIZE, ENTRIES_AT = 84, 32, 40
LEGACY = (
    ("/proc/net/ip_tables_names", socket.AF_INET, socket.IPPROTO_IP),
    ("/proc/net/ip6_tables_names", socket.AF_INET6, SOL_IPV6),
)
READ_TRIES = 20


@dataclass(frozen=True, slots=True)
class Traces:
    """The names in the kernel that say whose rules there are."""

    tables: frozenset[str]
    chains: frozenset[str]  # Swapper's chains of iptables on nf_tables
    legacy: bytes  # raw and nat of the legacy xtables, as the kernel gives them out
    sets: frozenset[str]

    def may_hold(self, dataplane: DataplaneName, engine: Engine, service: str, *, beside: bool = False) -> bool:
        """Whether one dataplane on one engine may hold anything of a service.

        `beside`: another dataplane carries the service in the same chains, so nothing but a drain's sets can be left.
        """
        if engine is Engine.NFTABLES:
            return f"swapper_{dataplane}" in self.tables
        is_zones = dataplane is DataplaneName.ZONES
        if is_zones and any(one.startswith(f"sw-{service}-") for one in self.sets):
            return True
        if beside:
            return False
        if engine is Engine.IPTABLES_LEGACY:
            return (f"SW-{service}\0" if is_zones else f"swapper-{service}\0").encode() in self.legacy
        return f"SW-{service}" in self.chains if is_zones else bool(self.chains)


def read() -> Traces:
    """Ask the kernel, in the network namespace of the caller. Raises MissingError without CAP_NET_ADMIN."""
    tables = {
        _text(message.attributes().get(NFTA_TABLE_NAME, b""))
        for message in nfnetlink.listed(NFT_GETTABLE, NFPROTO_INET)
    }
    chains = set()
    for message in nfnetlink.listed(NFT_GETCHAIN, socket.AF_UNSPEC):
        if b"SW" not in message.body:
            continue  # others may have thousands
        said = message.attributes()
        table, chain = _text(said.get(NFTA_CHAIN_TABLE, b"")), _text(said.get(NFTA_CHAIN_NAME, b""))
        if message.family != NFPROTO_INET and table in ("raw", "nat") and chain.startswith(("SWAPPER-", "SW-")):
            chains.add(chain)
    legacy = b"".join(
        _legacy_table(family, level, name)
        for path, family, level in LEGACY
        for name in _words(Path(path))  # asking for another table would make it
        if name in ("raw", "nat")
    )
    return Traces(frozenset(tables), frozenset(chains), legacy, frozenset(ipsets()))


def has_nf_tables() -> bool:
    """Whether this kernel has nf_tables, which two of the engines program."""
    return nfnetlink.exists(NFT_GETGEN)


def ipsets() -> list[str]:
    """The names of every ipset; none where the kernel has no ip_set."""
    request = nfnetlink.attribute(IPSET_ATTR_PROTOCOL, bytes([IPSET_PROTOCOL_MIN])) + nfnetlink.attribute(
        IPSET_ATTR_FLAGS | NET_BYTEORDER, struct.pack("!I", IPSET_FLAG_LIST_SETNAME)
    )
    messages = nfnetlink.listed(IPSET_LIST, socket.AF_INET, request)
    return [_text(name) for message in messages if (name := message.attributes().get(IPSET_ATTR_SETNAME))]


def _legacy_table(family: int, level: int, name: str) -> bytes:
    """The entries of one table; Python's getsockopt takes no question, so this is libc's."""
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as sock:

        def asked(option: int, size: int, question: bytes) -> bytes | None:
            buffer, length = ctypes.create_string_buffer(question, size), ctypes.c_uint32(size)
            failed = libc.getsockopt(sock.fileno(), level, option, buffer, ctypes.byref(length))
            return None if failed else buffer.raw

        for _ in range(READ_TRIES):  # again when another program has committed in between
            if info := asked(SO_GET_INFO, INFO_SIZE, name.encode()):
                (size,) = struct.unpack_from("=I", info, INFO_SIZE - 4)
                question = struct.pack(f"={NAME_SIZE}sI", name.encode(), size)
                if table := asked(SO_GET_ENTRIES, ENTRIES_AT + size, question):
                    return table
    raise KernelRefusedError(f"the legacy table {name} cannot be read: {os.strerror(ctypes.get_errno())}")


def _words(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").split() if path.exists() else []


def _text(name: bytes) -> str:
    return name.rstrip(b"\0").decode(errors="replace")
