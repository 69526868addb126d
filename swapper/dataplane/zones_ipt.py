"""`zones` on iptables: the raw table gives a datagram its conntrack zone and a mark, the nat table translates by mark.

A swap rewrites one private chain of the raw table, one commit a family; the nat rules never change. Bits 0x3000 of
the packet mark say the set (0x1000 blue, 0x2000 green) between the two tables, since nat cannot match a zone.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from swapper.dataplane.base import Draining, Observation
from swapper.dataplane.chains import (
    PRIVATE,
    Chains,
    Wanted,
    closed,
    comment,
    is_zones,
    matches,
    owner,
    private_names,
    replies_first,
)
from swapper.dataplane.iptables import IptablesEngine, Rule, Rules, families, rule
from swapper.dataplane.liveflows import by_zone, clients
from swapper.dataplane.stay_ipset import StayIpset, deadline
from swapper.dataplane.zonenumbers import Zones, free_zone
from swapper.errors import KernelRefusedError, SwapperError
from swapper.model import DataplaneName, Engine, Family, PortSet, Protocol, Service, Swap, Target, UdpMode

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["ZonesIptables", "destination"]

MARK = {PortSet.BLUE: "0x1000/0x3000", PortSet.GREEN: "0x2000/0x3000"}


class ZonesIptables:
    """The zones dataplane on either iptables engine."""

    name = DataplaneName.ZONES
    engine: Engine

    def __init__(self, engine: IptablesEngine) -> None:
        self.engine = engine.engine
        self._engine = engine
        self._chains = Chains(engine)
        self._stay = StayIpset()
        self._zones: dict[str, Zones] = {}

    def rehearse(self) -> None:
        """Raise MissingError where the engine could read and not commit."""
        self._engine.rehearse()

    def observe(self, service: Service) -> Observation:
        """Read what the kernel does with `service`; changes nothing."""
        seen = {family: self._engine.read(family) for family in families()}
        zones = _zones_in(seen, service)
        self._zones[service.name] = zones
        if not any(self._chains.owned(rules, service.name) for rules in seen.values()):
            return Observation(None, (f"{self.engine} has nothing of {service.name}",))
        actives = {_active(rules, service) for rules in seen.values()}
        active = actives.pop() if len(actives) == 1 else None
        faults = [fault for rules in seen.values() for fault in self._chains.strangers(rules)]
        if active is None:
            faults.append("the families do not both lead to one set")
        elif not _complete(zones, service):
            faults.append(f"no replies of {service.name} find their zone")
        else:
            for family, rules in seen.items():
                present = self._without_stay(rules, service, family)
                if present != _wanted(service, active, zones, family):
                    faults.append(f"the IPv{family} rules of {service.name} are not those of the configuration")
        staying_on = self._stay.observe(service, seen)
        draining = Draining(staying_on, self._stay.left(service)) if staying_on and active else None
        return Observation(active, tuple(faults), draining, litter=draining is None and self._stay.is_on(service))

    def install(self, service: Service, active: PortSet) -> None:
        """Make the kernel carry the whole service on `active`."""
        seen = {family: self._engine.read(family) for family in families()}
        zones = _zones_in(seen, service)
        if service.of(Protocol.UDP):
            used = {zone for rules in seen.values() for zone in _zones_of_others(rules, service.name)}
            used |= set(zones.values())
            for port_set in PortSet:
                if port_set not in zones:
                    zones[port_set] = free_zone(service, port_set, used)
                    used.add(zones[port_set])
        for family, rules in seen.items():
            wanted = _wanted(service, active, zones, family)
            for table in ("nat", "raw"):  # nat first: without marks its rules match nothing
                if text := self._chains.difference(table, rules, service.name, wanted):
                    self._engine.commit(family, text)
        self._stay.destroy(service.name)
        self._zones[service.name] = zones

    def script(self, swap: Swap) -> str:
        """The exact text that `apply(swap)` commits, once for each family."""
        return "".join(f"# IPv{family}\n{text}" for family, text in self._texts(swap).items())

    def apply(self, swap: Swap) -> float:
        """Move the service, one commit a family; milliseconds that the commits took together."""
        draining = swap.udp is UdpMode.DRAIN and bool(swap.service.of(Protocol.UDP))
        previous = self._stay.active(swap.service)
        try:
            if draining:
                self._let_stay(swap, learning=previous is None)
            texts = self._texts(swap)
            started = time.perf_counter()
            for family, text in texts.items():
                self._engine.commit(family, text)
            elapsed_ms = (time.perf_counter() - started) * 1e3
        except Exception:
            self._take_back(swap, previous)
            raise
        if previous is not None and not (draining and previous is swap.source):
            self._stay.destroy_set(swap.service.name, previous)
        if not draining:
            self._stay.forget(swap.service)
        return elapsed_ms

    def staying(self, service: Service) -> int:
        """How many flows a drain still keeps on the old set."""
        return self._stay.left(service)

    def cut(self, service: Service) -> None:
        """End a drain: what still stays moves now."""
        if self._stay.active(service) is not None:
            # Not simply the other set: a command that died while it learnt the flows had moved nothing yet.
            seen = (_active(self._engine.read(family), service) for family in families())
            active = next((port_set for port_set in seen if port_set is not None), None)
            if active is None:
                raise KernelRefusedError(f"{service.name}: no set is active; run: swapper apply {service.name}")
            # Not by `apply`: what is refused here must not move anything back.
            for family, text in self._texts(Swap(service, active, UdpMode.CUT)).items():
                self._engine.commit(family, text)
        self._stay.destroy(service.name)

    def uninstall(self, name: str) -> bool:
        """Take out every rule of the service called `name`."""
        found = False
        for family in families():
            rules = self._engine.read(family)
            if not is_zones(self._chains.owned(rules, name), name):
                continue
            found = True
            for table in ("raw", "nat"):
                if text := self._chains.difference(table, rules, name, {}):
                    self._engine.commit(family, text)
        self._stay.destroy(name)
        self._zones.pop(name, None)
        return found

    def flows(self, service: Service) -> dict[PortSet, int | None]:
        """Live flows per set: UDP by zone, TCP by the backend that answers."""
        return by_zone(service, self._zones.get(service.name, {}))

    def _let_stay(self, swap: Swap, *, learning: bool) -> None:
        """Fill the sets of those who may stay on the old set."""
        self._stay.create(swap.service, swap.source)
        if learning:
            for family in families():
                self._engine.commit(family, self._learning(swap, family))
        zone = self._zones[swap.service.name][swap.source]
        self._stay.add(swap.service, swap.source, clients(zone, swap.service))
        self._stay.begin(swap.service, swap.source)

    def _without_stay(self, rules: Rules, service: Service, family: Family) -> Wanted:
        """The rules of a service less what a drain adds for its time."""
        chain = PRIVATE + service.name
        kept = {w: r for w, r in self._chains.owned(rules, service.name).items() if w[1] != f"{chain}.stay"}
        if ("raw", chain) in kept:
            kept["raw", chain] = [
                words for words in kept["raw", chain] if not self._stay.is_of_drain(words, service, family)
            ]
        return kept

    def _take_back(self, swap: Swap, previous: PortSet | None) -> None:
        """After a refusal: each family as it was, so that one never moves without the other."""
        before = Swap(swap.service, swap.source, UdpMode.CUT if previous is None else UdpMode.DRAIN)
        for family, text in self._texts(before).items():
            with suppress(SwapperError):  # the family that refused has not moved
                self._engine.commit(family, text)
        with suppress(SwapperError):
            if previous is None:
                self._stay.destroy(swap.service.name)
            else:
                self._stay.begin(swap.service, previous)

    def _texts(self, swap: Swap) -> dict[Family, str]:
        """What a swap commits in each family."""
        until = deadline(swap.service)
        return {family: self._text(swap, family, until) for family in families()}

    def _text(self, swap: Swap, family: Family, until: datetime) -> str:
        chain, service = PRIVATE + swap.service.name, swap.service
        zones = self._zones[service.name]
        lines = [f":{chain} - [0:0]"]
        stay: list[Rule] = []
        if swap.udp is UdpMode.DRAIN and service.of(Protocol.UDP):
            stay_chain = f"{chain}.stay"
            lines.append(f":{stay_chain} - [0:0]")
            kept = self._stay.kept(service, swap.source, family)
            lines += [f"-A {stay_chain} {' '.join(r)}" for r in [*kept, *_switched(service, swap.source, zones)]]
            stay = [self._stay.match(service, swap.source, family, stay_chain, until)]
        lines += [f"-A {chain} {' '.join(r)}" for r in [*stay, *_switched(service, swap.to, zones)]]
        if not stay and self._stay.active(service) is not None:
            lines += [f":{chain}.stay - [0:0]", f"-X {chain}.stay"]
        return "\n".join(["*raw", *lines, "COMMIT", ""])

    def _learning(self, swap: Swap, family: Family) -> str:
        """The old set's chain, with every flow that passes noted."""
        chain = PRIVATE + swap.service.name
        zones = self._zones[swap.service.name]
        rules = [
            *self._stay.kept(swap.service, swap.source, family),
            *_switched(swap.service, swap.source, zones),
        ]
        return "\n".join(["*raw", f":{chain} - [0:0]", *(f"-A {chain} {' '.join(r)}" for r in rules), "COMMIT", ""])


def _wanted(service: Service, active: PortSet, zones: Zones, family: Family) -> Wanted:
    """Every rule of a service in one family."""
    said = comment(service)
    chain = PRIVATE + service.name
    pre = [rule(text) for text in closed(service, family)]
    out: list[Rule] = []
    dnat: list[Rule] = []
    snat: list[Rule] = []
    for port in service.ports:
        for port_set in PortSet:
            target = port.target(port_set)
            if not target.serves(family):
                continue
            width = 32 if family == 4 else 128
            proto = f"-p {port.protocol} -m {port.protocol}"
            address = target.address(family)
            if port.protocol is Protocol.UDP:
                replies = rule(f"{_replies(service, target, family)} {zones[port_set]}")
                (pre if address else out).append(replies)
            if address:
                loopback = "127.0.0.0/8" if family == 4 else "::1/128"
                where = f"-s {loopback} -d {address}/{width} {proto} --dport {target.port}"
                snat.append(rule(f"{where} {said} -j MASQUERADE"))
            to = destination(target, family)
            dnat.append(rule(f"{matches(port)} -m mark --mark {MARK[port_set]} {said} -j DNAT --to-destination {to}"))
        if port.blue.serves(family):
            pre.append(rule(f"{matches(port)} {said} -j {chain}"))
            out.append(rule(f"{matches(port)} {said} -j {chain}"))
    shared = {
        ("raw", "SWAPPER-PRE"): pre,
        ("raw", "SWAPPER-OUT"): out,
        ("nat", "SWAPPER-DNAT"): dnat,
        ("nat", "SWAPPER-DNAT-OUT"): dnat,
        ("nat", "SWAPPER-SNAT"): snat,
    }
    wanted: Wanted = {where: sorted(rules, key=replies_first) for where, rules in shared.items() if rules}
    wanted["raw", chain] = _switched(service, active, zones)
    return wanted


def _replies(service: Service, target: Target, family: Family) -> str:
    """The rule by which replies of a UDP backend find its zone, up to the zone's number."""
    address = target.address(family)
    source = f"-s {address}/{32 if family == 4 else 128} " if address else ""
    return f"{source}-p udp -m udp --sport {target.port} {comment(service)} -j CT --zone"


def destination(target: Target, family: Family) -> str:
    """The word that `--to-destination` takes."""
    address = target.address(family)
    if address is None:
        return f":{target.port}"
    return f"[{address}]:{target.port}" if family == 6 else f"{address}:{target.port}"


def _switched(service: Service, active: PortSet, zones: Zones) -> list[Rule]:
    """The private chain that a swap rewrites."""
    rules = [rule(f"-j MARK --set-xmark {MARK[active]}")]
    if service.of(Protocol.UDP):
        rules.append(rule(f"-p udp -j CT --zone {zones[active]}"))
    return rules


def _complete(zones: Zones, service: Service) -> bool:
    return len(zones) == len(PortSet) or not service.of(Protocol.UDP)


def _active(rules: Rules, service: Service) -> PortSet | None:
    body = rules.get("raw", {}).get(PRIVATE + service.name, [])
    marks = [words[-1] for words in body if words[:3] == ("-j", "MARK", "--set-xmark")]
    return next((port_set for port_set, mark in MARK.items() if marks == [mark]), None)


def _zones_of_others(rules: Rules, name: str) -> set[int]:
    numbers = (
        words[words.index("--zone") + 1]
        for chain, body in rules.get("raw", {}).items()
        for words in body
        if "--zone" in words and owner(words) != name and chain not in private_names(name)
    )
    return {int(number) for number in numbers if number.isdigit()}  # it may also be the packet's mark


def _zones_in(seen: dict[Family, Rules], service: Service) -> Zones:
    """The zone of each set, from the rules by which its replies find it.

    A set is left out when the replies of one of its targets find none, or another one.
    """
    zones: Zones = {}
    led = {
        (family, chain, words[:-1]): words[-1]
        for family, rules in seen.items()
        for chain, body in rules.get("raw", {}).items()
        for words in reversed(body)  # of two that match the same, the first gives the zone
        if words[-2:-1] == ("--zone",)
    }
    for port_set in PortSet:
        found: set[str | None] = set()
        for port in service.of(Protocol.UDP):
            target = port.target(port_set)
            chain = "SWAPPER-OUT" if target.on_host else "SWAPPER-PRE"
            found |= {
                led.get((family, chain, rule(_replies(service, target, family))))
                for family in seen
                if target.serves(family)
            }
        if len(found) == 1 and (zone := found.pop()) is not None:
            zones[port_set] = int(zone)
    return zones
