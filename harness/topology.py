"""What a test network looks like, as pure values.

Knows nothing of namespaces or sockets: `netns.build` makes one of these real.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["End", "Link", "Node", "Route", "Topology", "family_of", "link"]

Family = Literal[4, 6]
Side = Literal["outside", "inside", "loopback"]

FAMILIES: tuple[Family, ...] = (4, 6)
SIDES: tuple[Side, ...] = ("outside", "inside", "loopback")


@dataclass(frozen=True, slots=True)
class Node:
    """One network namespace; a bridged one hangs its peers' links on one bridge."""

    name: str
    forwards: bool = False
    bridge: str | None = None
    bridge_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: the node, the interface name in it, and `address/prefix` per family.

    `bridged` puts the end on its node's bridge, which then carries the addresses.
    """

    node: str
    interface: str
    addresses: tuple[str, ...] = ()
    bridged: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A veth pair between two nodes."""

    a: End
    b: End


@dataclass(frozen=True, slots=True)
class Route:
    """In `node`, `destination` ("default" or a prefix) is reached by `gateway`."""

    node: str
    destination: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes, links and routes; one node is the host that swaps, one the client outside."""

    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    routes: tuple[Route, ...] = ()
    host: str = "host"
    outside: str = "outside"

    def node(self, name: str) -> Node:
        """The node called `name`; KeyError if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def address(self, node: str, family: Family) -> str:
        """The first address of `node` in `family`, without prefix; KeyError if it has none."""
        for text in self._addresses(node):
            address = text.partition("/")[0]
            if family_of(address) == family:
                return address
        raise KeyError(f"{node} has no IPv{family} address in {self.name}")

    def node_of(self, side: Side) -> str:
        """The node in which clients of `side` run."""
        return self.outside if side == "outside" else self.host

    def target(self, side: Side, family: Family) -> str:
        """The address that clients of `side` send to."""
        if side == "loopback":
            return "127.0.0.1" if family == 4 else "::1"
        # The host's first link leads towards the client, directly or through the router.
        return self.address(self.host, family)

    def source(self, side: Side, family: Family) -> str:
        """The address that clients of `side` send from."""
        if side == "outside":
            return self.address(self.outside, family)
        return self.target(side, family)

    def outside_link(self) -> Link:
        """The link that clients outside come by; its end `a` is theirs."""
        return next(link for link in self.links if link.a.node == self.outside)

    def ends(self) -> list[End]:
        """Every end of every link, in order."""
        return [end for link in self.links for end in (link.a, link.b)]

    def _addresses(self, node: str) -> list[str]:
        found = [address for end in self.ends() if end.node == node for address in end.addresses]
        return [*found, *self.node(node).bridge_addresses]


def family_of(address: str) -> Family:
    """4 or 6, by how the address is written."""
    return 6 if ":" in address else 4


def link(a: str, b: str, *, a_addresses: tuple[str, ...], b_addresses: tuple[str, ...] = ()) -> Link:
    """A veth pair whose interfaces are named after the node at the far end; no address: on b's bridge."""
    return Link(
        a=End(a, f"to-{b}", a_addresses),
        b=End(b, f"to-{a}", b_addresses, bridged=not b_addresses),
    )


HOST_ADDRESSES = ("192.0.2.1/24", "2001:db8:1::1/64")

OUTSIDE_AND_HOST = Topology(
    name="outside-and-host",
    nodes=(Node("outside"), Node("host", forwards=True)),
    links=(
        link(
            "outside",
            "host",
            a_addresses=("192.0.2.2/24", "2001:db8:1::2/64"),
            b_addresses=HOST_ADDRESSES,
        ),
    ),
)

ROUTED = Topology(
    name="routed",
    nodes=(Node("outside"), Node("router", forwards=True), Node("host", forwards=True)),
    links=(
        link(
            "outside",
            "router",
            a_addresses=("198.51.100.2/24", "2001:db8:2::2/64"),
            b_addresses=("198.51.100.1/24", "2001:db8:2::1/64"),
        ),
        link(
            "router",
            "host",
            a_addresses=("192.0.2.254/24", "2001:db8:1::fe/64"),
            b_addresses=HOST_ADDRESSES,
        ),
    ),
    routes=(
        Route("outside", "default", "198.51.100.1"),
        Route("outside", "default", "2001:db8:2::1"),
        Route("host", "default", "192.0.2.254"),
        Route("host", "default", "2001:db8:1::fe"),
    ),
)

BRIDGED = Topology(
    name="bridged",
    nodes=(
        Node("outside"),
        Node("host", forwards=True, bridge="br0", bridge_addresses=("172.30.0.1/24", "fd00:30::1/64")),
        Node("blue"),
        Node("green"),
    ),
    links=(
        *OUTSIDE_AND_HOST.links,
        link("blue", "host", a_addresses=("172.30.0.2/24", "fd00:30::2/64")),
        link("green", "host", a_addresses=("172.30.0.3/24", "fd00:30::3/64")),
    ),
    routes=(
        Route("outside", "default", "192.0.2.1"),
        Route("outside", "default", "2001:db8:1::1"),
        Route("blue", "default", "172.30.0.1"),
        Route("blue", "default", "fd00:30::1"),
        Route("green", "default", "172.30.0.1"),
        Route("green", "default", "fd00:30::1"),
    ),
)

PRESETS: dict[str, Topology] = {preset.name: preset for preset in (OUTSIDE_AND_HOST, ROUTED, BRIDGED)}
