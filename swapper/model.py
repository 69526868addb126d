"""The nouns of Swapper. Values only: nothing here knows the kernel, files or the clock."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from swapper.recipe import Recipe

__all__ = [
    "FAMILIES",
    "SERVICE_NAME",
    "Address",
    "BackendKind",
    "Classic",
    "DataplaneName",
    "Engine",
    "Family",
    "Flush",
    "PortMap",
    "PortSet",
    "Protocol",
    "Service",
    "Swap",
    "Target",
    "UdpMode",
]

Family = Literal[4, 6]
Address = IPv4Address | IPv6Address
FAMILIES: tuple[Family, Family] = (4, 6)

# Short enough for a part of a chain or set name (xt chains hold 28 characters, ipset 31), plain in a shell.
SERVICE_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")


class PortSet(StrEnum):
    """One of the two homes that a service's backend can have."""

    BLUE = "blue"
    GREEN = "green"

    @property
    def other(self) -> PortSet:
        """The set that this one swaps with."""
        return PortSet.GREEN if self is PortSet.BLUE else PortSet.BLUE


class Protocol(StrEnum):
    """A transport protocol that Swapper moves."""

    UDP = "udp"
    TCP = "tcp"


class DataplaneName(StrEnum):
    """The kernel mechanism that carries a public port to the active port set."""

    ZONES = "zones"
    STATELESS = "stateless"
    CLASSIC = "classic"
    MEMORY = "memory"


class Engine(StrEnum):
    """What programs a dataplane."""

    NFTABLES = "nftables"
    IPTABLES_NFT = "iptables-nft"
    IPTABLES_LEGACY = "iptables-legacy"
    MEMORY = "memory"


class UdpMode(StrEnum):
    """What a swap does with UDP flows that exist: move them at once, or let them stay until idle."""

    CUT = "cut"
    DRAIN = "drain"


class Flush(StrEnum):
    """Which conntrack entries the classic dataplane deletes after a swap."""

    NONE = "none"
    TARGETED = "targeted"
    ALL = "all"


class BackendKind(StrEnum):
    """Who starts the backend."""

    EXTERNAL = "external"
    PROCESS = "process"
    DOCKER = "docker"


@dataclass(frozen=True, slots=True)
class Target:
    """Where one port set receives one public port: a port of this host, or addresses behind a bridge.

    `addresses` is empty for a host port, which serves both families. Otherwise it holds at most one address
    of each family, and a family without an address is not served.
    """

    port: int
    addresses: tuple[Address, ...] = ()

    @property
    def on_host(self) -> bool:
        """Whether the backend listens in this host's own network namespace."""
        return not self.addresses

    def address(self, family: Family) -> Address | None:
        """The address of that family, None for a host port or where the family is not served."""
        return next((address for address in self.addresses if address.version == family), None)

    def serves(self, family: Family) -> bool:
        """Whether clients of that family reach this target."""
        return self.on_host or self.address(family) is not None

    def __str__(self) -> str:
        """The notation of the configuration file."""
        if self.on_host:
            return str(self.port)
        shown = [f"[{a}]:{self.port}" if a.version == 6 else f"{a}:{self.port}" for a in self.addresses]
        return " + ".join(shown)


@dataclass(frozen=True, slots=True)
class PortMap:
    """One public port and its internal target in each port set."""

    protocol: Protocol
    public: int
    blue: Target
    green: Target

    def target(self, port_set: PortSet) -> Target:
        """The internal target in `port_set`."""
        return self.blue if port_set is PortSet.BLUE else self.green


@dataclass(frozen=True, slots=True)
class Classic:
    """The knobs of the classic recipe; only the classic dataplane reads them."""

    flush: Flush = Flush.TARGETED
    output_chain: bool = True


@dataclass(frozen=True, slots=True)
class Service:
    """One backend and the public ports that clients use. Durations are seconds."""

    name: str
    ports: tuple[PortMap, ...]
    dataplane: DataplaneName = DataplaneName.ZONES
    engine: Engine | None = None  # None: the best that this host has
    protect: bool = True
    udp: UdpMode = UdpMode.CUT
    drain_timeout_s: float = 30.0
    idle_timeout_s: float = 10.0
    classic: Classic = field(default_factory=Classic)
    backend: BackendKind = BackendKind.EXTERNAL
    recipe: Recipe = field(default_factory=Recipe)  # of a backend that is not external

    @property
    def reaches_itself(self) -> bool:
        """Whether this very host reaches the public ports: not with the classic recipe without its OUTPUT rules."""
        return self.dataplane is not DataplaneName.CLASSIC or self.classic.output_chain

    def of(self, protocol: Protocol) -> tuple[PortMap, ...]:
        """The ports of one protocol, in the order of the configuration."""
        return tuple(port for port in self.ports if port.protocol is protocol)


@dataclass(frozen=True, slots=True)
class Swap:
    """A change of the active port set: a value that dataplanes can print, apply and reverse."""

    service: Service
    to: PortSet
    udp: UdpMode = UdpMode.CUT

    @property
    def source(self) -> PortSet:
        """The set that traffic leaves."""
        return self.to.other

    def reversed(self) -> Swap:
        """The swap that undoes this one."""
        return Swap(self.service, self.source, self.udp)
