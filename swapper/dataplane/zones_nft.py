"""`zones` on nftables: a datagram's conntrack zone decides which backend it is translated to.

Each port set's backend owns a zone. `zone_of` gives a public port the zone of the active set, and is all that a swap
changes: in the new zone every flow is new and is translated to the new backend, while replies of the old backend find
their entries in the old zone by the port they come from. So nothing in flight is lost and nothing is flushed.
TCP stays in zone 0, where its connections keep their backend by conntrack as ever.
"""

from __future__ import annotations

import time

from swapper.dataplane.base import Draining, Observation
from swapper.dataplane.common_nft import (
    COMMON_CHAINS,
    COMMON_MAPS,
    PROTECT_RULES,
    fixed_elements,
    leads_to,
    tcp_elements,
)
from swapper.dataplane.libnftables import Nftables
from swapper.dataplane.liveflows import by_zone, clients
from swapper.dataplane.nfttable import Element, NftTable
from swapper.dataplane.stay_nft import StayNft
from swapper.dataplane.zonenumbers import Zones, free_zone
from swapper.errors import KernelRefusedError
from swapper.model import FAMILIES, DataplaneName, Engine, PortSet, Protocol, Service, Swap, UdpMode

__all__ = ["TABLE", "ZonesNft"]

TABLE = "swapper_zones"
SINCE = "5.2"  # nat in an inet table (nft_chain_nat.c)
BUSY_S = 10.0
BUSY_POLL_S = 0.3  # every try, also one that fails, makes the kernel begin its collection anew

# Before anything else is made of a packet: the port that a reply goes to may happen to be a public one.
BRIDGED_REPLIES = """\
    ct zone set ip saddr . udp sport map @zone_of_reply4 accept
    ct zone set ip6 saddr . udp sport map @zone_of_reply6 accept
"""

BODY = f"""\
  map zone_of {{ typeof udp dport : ct zone; }}
  map zone_of_reply {{ typeof udp sport : ct zone; }}
  map zone_of_reply4 {{ typeof ip saddr . udp sport : ct zone; }}
  map zone_of_reply6 {{ typeof ip6 saddr . udp sport : ct zone; }}
  map target {{ typeof ct zone . udp dport : udp dport; }}
  map target4 {{ typeof ct zone . udp dport : ip daddr . udp dport; }}
  map target6 {{ typeof ct zone . udp dport : ip6 daddr . udp dport; }}
  map stay {{ typeof udp dport : verdict; flags timeout; }}
{COMMON_MAPS}
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iif lo accept
    udp dport @served fib daddr type local goto to_public
{PROTECT_RULES}
{BRIDGED_REPLIES}
  }}
  chain output {{
    type filter hook output priority raw; policy accept;
    ct zone set udp sport map @zone_of_reply accept
    udp dport @served fib daddr type local goto clients
  }}
  chain to_public {{
{BRIDGED_REPLIES}
    goto clients
  }}
  chain clients {{
    udp dport vmap @stay
    ct zone set udp dport map @zone_of
  }}
  chain translate_udp {{
    meta l4proto udp dnat ip to ip daddr : ct zone . udp dport map @target
    meta l4proto udp dnat ip6 to ip6 daddr : ct zone . udp dport map @target
    meta l4proto udp dnat ip to ct zone . udp dport map @target4
    meta l4proto udp dnat ip6 to ct zone . udp dport map @target6
  }}
  chain translate {{
    fib daddr type local meta l4proto udp jump translate_udp
    fib daddr type local meta l4proto tcp jump translate_tcp
  }}
{COMMON_CHAINS}
  chain nat_prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump translate
  }}
  chain nat_output {{
    type nat hook output priority -100; policy accept;
    jump translate
  }}
"""


class ZonesNft:
    """The default dataplane. One object serves any number of services of one network namespace."""

    name = DataplaneName.ZONES
    engine = Engine.NFTABLES

    def __init__(self, nft: Nftables | None = None) -> None:
        self._nft = nft or Nftables()
        self._table = NftTable(self._nft, TABLE, BODY, since=SINCE, transient="stay")
        self._stay = StayNft(self._nft, TABLE)
        self._zones: dict[str, Zones] = {}

    def rehearse(self) -> None:
        """Raise MissingError where the kernel would not take the rules."""
        self._table.rehearse()

    def observe(self, service: Service) -> Observation:
        """Read what the kernel does with `service`; changes nothing."""
        snapshot = self._table.read()
        owned = snapshot.of(service.name)
        if not owned:
            return Observation(None, (f"table inet {TABLE} has nothing of {service.name}",))
        zones = _zones_in(owned, service)
        self._zones[service.name] = zones
        active = _active(owned, service, zones)
        faults = [] if snapshot.rules_intact else [f"the rules of table inet {TABLE} were altered"]
        if active is None:
            faults.append("its ports do not all lead to one set")
        elif owned != _elements(service, active, zones):
            faults.append(f"the elements of {service.name} are not those of the configuration")
        draining = self._draining(service, active)
        return Observation(active, tuple(faults), draining, litter=draining is None and self._stay.is_on(service))

    def install(self, service: Service, active: PortSet) -> None:
        """Make the kernel carry the whole service on `active`."""
        snapshot = self._table.read()
        zones = _zones_in(snapshot.of(service.name), service)
        if service.of(Protocol.UDP):
            used = {int(e.value) for e, owner in snapshot.owned.items() if _is_reply(e) and owner != service.name}
            used |= set(zones.values())
            for port_set in PortSet:
                if port_set not in zones:
                    zones[port_set] = free_zone(service, port_set, used)
                    used.add(zones[port_set])
        self._table.replace(service.name, _elements(service, active, zones), snapshot)
        self._zones[service.name] = zones
        self._end_drain(service.name)

    def script(self, swap: Swap) -> str:
        """The exact text that `apply(swap)` commits, without the flows that a drain lets stay."""
        text = self._switch(swap)
        if swap.udp is UdpMode.DRAIN and swap.service.of(Protocol.UDP):
            text = self._stay.keep(swap, self._zones[swap.service.name][swap.source], []) + text
        return self._stay.end(swap.service) + text

    def apply(self, swap: Swap) -> float:
        """Move the service in one transaction; milliseconds that the commit took.

        A drain first lets the flows' own packets enter the set of those who may stay, then adds what conntrack knows,
        so that a flow which begins in between stays too.
        """
        text = self._switch(swap)
        if swap.udp is UdpMode.DRAIN and swap.service.of(Protocol.UDP):
            zone = self._zones[swap.service.name][swap.source]
            learning = self._stay.learn(swap, zone)
            text = self._stay.keep(swap, zone, clients(zone, swap.service), learning=learning) + text
            ending = "" if learning else self._stay.end(swap.service)
        else:
            ending = self._stay.end(swap.service)
        started = time.perf_counter()
        self._run(ending + text)
        elapsed_ms = (time.perf_counter() - started) * 1e3
        self._stay.committed(swap)
        return elapsed_ms

    def staying(self, service: Service) -> int:
        """How many flows a drain still keeps on the old set."""
        return self._stay.left(service)

    def cut(self, service: Service) -> None:
        """End a drain: what still stays moves now."""
        self._end_drain(service.name)

    def uninstall(self, name: str) -> bool:
        """Take out every rule of the service called `name`, the table with the last one."""
        snapshot = self._table.read()
        owned = snapshot.of(name)
        if not owned:
            return False
        if owned == set(snapshot.owned):
            self._table.drop()
        else:
            self._run(self._stay.end_of(name) + self._table.remove(sorted(owned)))
        self._stay.ended(name)
        self._zones.pop(name, None)
        return True

    def flows(self, service: Service) -> dict[PortSet, int | None]:
        """Live flows per set: UDP by zone, TCP by the backend that answers."""
        return by_zone(service, self._zones.get(service.name, {}))

    def _end_drain(self, name: str) -> None:
        if text := self._stay.end_of(name):
            self._run(text)
        self._stay.ended(name)

    def _run(self, text: str) -> None:
        """Commit, even while an element that reached its deadline still holds the chain that the text deletes.

        The kernel collects such elements about once a second; until then it says EBUSY. Flushing the map takes them
        out at once, before Linux 6.5 only the collection does (nf_tables_api.c, nft_set_flush).
        """
        give_up_s = time.monotonic() + BUSY_S
        first = ""
        while True:
            try:
                return self._nft.run(first + text)
            except KernelRefusedError as error:
                if "delete chain" not in text or "resource busy" not in str(error) or time.monotonic() > give_up_s:
                    raise
                if first:
                    time.sleep(BUSY_POLL_S)
            first = self._stay.renewed()

    def _draining(self, service: Service, active: PortSet | None) -> Draining | None:
        staying_on = self._stay.observe(service)
        if staying_on is None or active is None:
            return None
        return Draining(staying_on, self._stay.left(service))

    def _switch(self, swap: Swap) -> str:
        """The text that points every port of the service at the other set: nothing but elements."""
        service, zones = swap.service, self._zones[swap.service.name]
        before = _switched(service, swap.source, zones)
        return self._table.difference(service.name, before, _switched(service, swap.to, zones))


def _zones_in(owned: set[Element], service: Service) -> Zones:
    """The zone of each set as the kernel has it; a set whose targets the kernel does not know is left out."""
    zones: Zones = {}
    for port_set in PortSet:
        for zone in {int(e.value) for e in owned if _is_reply(e)}:
            if _replies(service, port_set, zone) <= owned:
                zones[port_set] = zone
    return zones if service.of(Protocol.UDP) else {}


def _is_reply(element: Element) -> bool:
    return element.where.startswith("zone_of_reply")


def _active(owned: set[Element], service: Service, zones: Zones) -> PortSet | None:
    if service.of(Protocol.UDP) and len(zones) < len(PortSet):
        return None
    return next((s for s in PortSet if _switched(service, s, zones) <= owned), None)


def _elements(service: Service, active: PortSet, zones: Zones) -> set[Element]:
    """Everything that the kernel must hold of a service."""
    elements = fixed_elements(service) | _switched(service, active, zones)
    for port_set, zone in zones.items():
        elements |= _replies(service, port_set, zone)
        for port in service.of(Protocol.UDP):
            elements |= leads_to("target", f"{zone} . {port.public}", port.target(port_set))
    return elements


def _switched(service: Service, active: PortSet, zones: Zones) -> set[Element]:
    """The elements that a swap changes."""
    udp = {Element("zone_of", str(port.public), str(zones[active])) for port in service.of(Protocol.UDP)}
    return udp | tcp_elements(service, active)


def _replies(service: Service, port_set: PortSet, zone: int) -> set[Element]:
    """How replies of one set's backend find its zone."""
    elements: set[Element] = set()
    for port in service.of(Protocol.UDP):
        target = port.target(port_set)
        if target.on_host:
            elements.add(Element("zone_of_reply", str(target.port), str(zone)))
        for family in FAMILIES:
            if address := target.address(family):
                elements.add(Element(f"zone_of_reply{family}", f"{address} . {target.port}", str(zone)))
    return elements
