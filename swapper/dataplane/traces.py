"""What of Swapper's the kernel may hold, asked of the kernel itself: rules outlive the library or tool that made them.

So an engine that does not work here is passed over only where the kernel shows nothing of it. Knows names only.
Source: include/uapi/linux/netfilter/nf_tables.h, include/uapi/linux/netfilter/ipset/ip_set.h.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from swapper import nfnetlink
from swapper.model import DataplaneName, Engine

__all__ = ["Traces", "has_nf_tables", "ipsets", "read"]

NFT_GETTABLE, NFT_GETCHAIN, NFT_GETGEN = 0xA01, 0xA04, 0xA10
NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME = 1, 1, 3
NFPROTO_INET = 1
IPSET_LIST = 0x607
IPSET_ATTR_PROTOCOL, IPSET_ATTR_SETNAME, IPSET_ATTR_FLAGS = 1, 2, 6
IPSET_PROTOCOL_MIN, IPSET_FLAG_LIST_SETNAME = 6, 2
NET_BYTEORDER = 0x4000
LEGACY_TABLES = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")


@dataclass(frozen=True, slots=True)
class Traces:
    """The names in the kernel that say whose rules there are; of the legacy xtables it tells only which tables."""

    tables: frozenset[str]  # Swapper's own nftables tables
    chains: frozenset[str]  # Swapper's chains of iptables on nf_tables
    legacy: frozenset[str]
    sets: frozenset[str]

    def may_hold(self, dataplane: DataplaneName, engine: Engine, service: str) -> bool:
        """Whether one dataplane on one engine may hold anything of a service."""
        if engine is Engine.NFTABLES:
            return f"swapper_{dataplane}" in self.tables
        drains = dataplane is DataplaneName.ZONES and any(one.startswith(f"sw-{service}-") for one in self.sets)
        return drains or bool(self.chains if engine is Engine.IPTABLES_NFT else self.legacy)


def read() -> Traces:
    """Ask the kernel, in the network namespace of the caller. Raises MissingError without CAP_NET_ADMIN."""
    tables = {
        _text(message.attributes().get(NFTA_TABLE_NAME, b"")) for message in nfnetlink.dump(NFT_GETTABLE, NFPROTO_INET)
    }
    chains = set()
    for message in nfnetlink.dump(NFT_GETCHAIN, socket.AF_UNSPEC):
        if b"SW" not in message.body:
            continue  # others may have thousands
        said = message.attributes()
        table, chain = _text(said.get(NFTA_CHAIN_TABLE, b"")), _text(said.get(NFTA_CHAIN_NAME, b""))
        if message.family != NFPROTO_INET and table in ("raw", "nat") and chain.startswith(("SWAPPER-", "SW-")):
            chains.add(chain)
    legacy = {name for path in LEGACY_TABLES for name in _lines(Path(path)) if name in ("raw", "nat")}
    return Traces(frozenset(tables), frozenset(chains), frozenset(legacy), frozenset(ipsets()))


def has_nf_tables() -> bool:
    """Whether this kernel has nf_tables, which two of the engines program."""
    return nfnetlink.exists(NFT_GETGEN)


def ipsets() -> list[str]:
    """The names of every ipset; none where the kernel has no ip_set."""
    request = nfnetlink.attribute(IPSET_ATTR_PROTOCOL, bytes([IPSET_PROTOCOL_MIN])) + nfnetlink.attribute(
        IPSET_ATTR_FLAGS | NET_BYTEORDER, struct.pack("!I", IPSET_FLAG_LIST_SETNAME)
    )
    messages = nfnetlink.dump(IPSET_LIST, socket.AF_INET, request)
    return [_text(name) for message in messages if (name := message.attributes().get(IPSET_ATTR_SETNAME))]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").split() if path.exists() else []


def _text(name: bytes) -> str:
    return name.rstrip(b"\0").decode(errors="replace")
