"""What both nftables dataplanes share: TCP by DNAT, closed internal ports, and loopback clients of bridged backends.

TCP connections keep their backend by conntrack; a swap only changes where new ones go.
"""

from __future__ import annotations

from collections.abc import Iterable

from swapper.dataplane.nfttable import Element
from swapper.model import FAMILIES, PortSet, Protocol, Service, Target

__all__ = [
    "COMMON_CHAINS",
    "COMMON_MAPS",
    "PROTECT_RULES",
    "fixed_elements",
    "leads_to",
    "needs_nat",
    "tcp_elements",
]

COMMON_MAPS = """\
  map tcp_target { typeof tcp dport : tcp dport; }
  map tcp_target4 { typeof tcp dport : ip daddr . tcp dport; }
  map tcp_target6 { typeof tcp dport : ip6 daddr . tcp dport; }
  set served { typeof udp dport; }
  set closed { typeof meta l4proto . th dport; }
  set closed4 { typeof ip daddr . meta l4proto . th dport; }
  set closed6 { typeof ip6 daddr . meta l4proto . th dport; }
  set bridged4 { typeof ip daddr . meta l4proto . th dport; }
  set bridged6 { typeof ip6 daddr . meta l4proto . th dport; }
"""

# At raw priority the destination is still what the client wrote: whoever names an internal port was not translated.
# Nothing public is closed, so these come after the rules that every datagram to a public port pays for.
PROTECT_RULES = """\
    meta l4proto . th dport @closed fib daddr type { local, broadcast, anycast, multicast } drop
    ip daddr . meta l4proto . th dport @closed4 drop
    ip6 daddr . meta l4proto . th dport @closed6 drop
"""

# A port is translated together with the address that it has: in an inet table Linux of before August 2021 (5.14)
# refuses the port alone, and before 5.19 (5.15.47, 5.10.122) takes the rule and never applies it (nft_nat_init,
# nft_nat_inet_eval).
#
# A client on 127.0.0.1 or ::1 is no return address for a backend behind a bridge, so it borrows the bridge's. (Replies
# never find back to ::1, for want of an IPv6 route_localnet; a one-way stream arrives.)
COMMON_CHAINS = """\
  chain translate_tcp {
    meta l4proto tcp dnat ip to ip daddr : tcp dport map @tcp_target
    meta l4proto tcp dnat ip6 to ip6 daddr : tcp dport map @tcp_target
    meta l4proto tcp dnat ip to tcp dport map @tcp_target4
    meta l4proto tcp dnat ip6 to tcp dport map @tcp_target6
  }
  chain nat_postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 127.0.0.0/8 ip daddr . meta l4proto . th dport @bridged4 masquerade
    ip6 saddr ::1 ip6 daddr . meta l4proto . th dport @bridged6 masquerade
  }
"""

L4PROTO = {Protocol.UDP: 17, Protocol.TCP: 6}


def fixed_elements(service: Service) -> set[Element]:
    """What a service needs whichever set is active: its public ports, its closed ones and its bridged backends."""
    # A set beside the maps that have the same keys: Linux 6.1, Debian 12's, takes no map for a set (nft_lookup_init).
    elements = {Element("served", str(port.public)) for port in service.of(Protocol.UDP)}
    for port in service.ports:
        number = L4PROTO[port.protocol]
        for target in (port.blue, port.green):
            if target.on_host:
                if service.protect:
                    elements.add(Element("closed", f"{number} . {target.port}"))
                continue
            for family in FAMILIES:
                if (address := target.address(family)) is None:
                    continue
                key = f"{address} . {number} . {target.port}"
                elements.add(Element(f"bridged{family}", key))
                if service.protect:
                    elements.add(Element(f"closed{family}", key))
    return elements


def needs_nat(elements: Iterable[Element]) -> bool:
    """Whether any element is looked up by a nat chain of `COMMON_CHAINS` or of TCP."""
    return any(element.where.startswith(("tcp_target", "bridged")) for element in elements)


def tcp_elements(service: Service, active: PortSet) -> set[Element]:
    """Where new TCP connections go."""
    return {
        element
        for port in service.of(Protocol.TCP)
        for element in leads_to("tcp_target", str(port.public), port.target(active))
    }


def leads_to(where: str, key: str, target: Target) -> set[Element]:
    """The elements of the map family `where`, `where`4 and `where`6 that lead `key` to a target."""
    if target.on_host:
        return {Element(where, key, str(target.port))}
    return {Element(f"{where}{address.version}", key, f"{address} . {target.port}") for address in target.addresses}
