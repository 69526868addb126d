"""`classic` on iptables: the recipe that people keep in a swap.sh, kept faithfully to be compared with.

A DNAT rule a port in PREROUTING and, with `output_chain`, in OUTPUT; a swap appends the new rule, deletes the old one,
then deletes conntrack entries as `flush` says. What that loses is the point: replies in flight lose their translation.
"""

from __future__ import annotations

import time

from swapper import flows
from swapper.dataplane.base import Draining, Observation
from swapper.dataplane.chains import Chains, Wanted, closed, comment, is_zones, matches
from swapper.dataplane.iptables import IptablesEngine, Rule, families, rule
from swapper.dataplane.liveflows import is_answered_by, tcp_flows
from swapper.dataplane.zones_ipt import destination
from swapper.errors import SwapperError
from swapper.model import (
    DataplaneName,
    Engine,
    Family,
    Flush,
    PortMap,
    PortSet,
    Protocol,
    Service,
    Swap,
    UdpMode,
)

__all__ = ["ClassicIptables"]


class ClassicIptables:
    """The classic recipe on either iptables engine."""

    name = DataplaneName.CLASSIC
    engine: Engine

    def __init__(self, engine: IptablesEngine) -> None:
        self.engine = engine.engine
        self._engine = engine
        self._chains = Chains(engine)

    def rehearse(self) -> None:
        """Raise MissingError where the engine could read and not commit."""
        self._engine.rehearse()

    def observe(self, service: Service) -> Observation:
        """Read what the kernel does with `service`; changes nothing."""
        seen = {family: self._engine.read(family) for family in families()}
        owned = {family: self._chains.owned(rules, service.name) for family, rules in seen.items()}
        if not any(owned.values()):
            return Observation(None, (f"{self.engine} has nothing of {service.name}",))
        faults = [fault for rules in seen.values() for fault in self._chains.strangers(rules)]
        active = next((s for s in PortSet if all(_leads(owned[f], service, s, f) for f in owned)), None)
        if active is None:
            faults.append("its ports do not all lead to one set")
        else:
            faults += [
                f"the IPv{family} rules of {service.name} are not those of the configuration"
                for family, present in owned.items()
                if _sorted(present) != _sorted(_wanted(service, active, family))
            ]
        draining = None
        if active is not None and service.udp is UdpMode.DRAIN and (left := len(_pinned(service, active.other))):
            draining = Draining(active.other, left)
        return Observation(active, tuple(faults), draining)

    def install(self, service: Service, active: PortSet) -> None:
        """Make the kernel carry the whole service on `active`."""
        for family in families():
            rules = self._engine.read(family)
            owned, wanted = self._chains.owned(rules, service.name), _wanted(service, active, family)
            if _sorted(owned) == _sorted(wanted) and not self._chains.strangers(rules):
                continue
            for table in ("nat", "raw"):
                if text := self._chains.difference(table, rules, service.name, wanted):
                    self._engine.commit(family, text)

    def script(self, swap: Swap) -> str:
        """The exact text that `apply(swap)` commits, once for each family."""
        return "".join(f"# IPv{family}\n{_text(swap, family)}" for family in families())

    def apply(self, swap: Swap) -> float:
        """Replace the rules, one commit a family, then flush; milliseconds that all of it took.

        With `udp = "drain"` nothing is flushed now: the flows stay until `cut`.
        """
        started = time.perf_counter()
        committed: list[Family] = []
        try:
            for family in families():
                self._engine.commit(family, _text(swap, family))
                committed.append(family)
        except SwapperError:
            for family in committed:
                self._engine.commit(family, _text(swap.reversed(), family))
            raise
        if swap.udp is UdpMode.CUT:
            self._flush(swap.service)
        return (time.perf_counter() - started) * 1e3

    def staying(self, service: Service) -> int:
        """How many UDP flows conntrack pins to the set that is not active."""
        return len(_pinned(service, self._old(service)))

    def cut(self, service: Service) -> None:
        """End a drain: delete the conntrack entries of the flows that stayed, unless nothing is ever to be flushed."""
        if service.classic.flush is not Flush.NONE:
            flows.delete(_pinned(service, self._old(service)))

    def uninstall(self, name: str) -> bool:
        """Take out every rule of the service called `name`."""
        found = False
        for family in families():
            rules = self._engine.read(family)
            owned = self._chains.owned(rules, name)
            if not owned or is_zones(owned, name):
                continue
            found = True
            for table in ("nat", "raw"):
                if text := self._chains.difference(table, rules, name, {}):
                    self._engine.commit(family, text)
        return found

    def flows(self, service: Service) -> dict[PortSet, int | None]:
        """Live flows per set, told apart by the backend that answers."""
        tcp = tcp_flows(service)
        return {port_set: tcp[port_set] + len(_pinned(service, port_set)) for port_set in PortSet}

    def _old(self, service: Service) -> PortSet:
        """The set that is not active, as the kernel has it."""
        family: Family = 4 if any(port.blue.serves(4) for port in service.ports) else 6
        owned = self._chains.owned(self._engine.read(family), service.name)
        return next((s.other for s in PortSet if _leads(owned, service, s, family)), PortSet.GREEN)

    def _flush(self, service: Service) -> None:
        if service.classic.flush is Flush.ALL:
            flows.flush()
        elif service.classic.flush is Flush.TARGETED:
            for port in service.of(Protocol.UDP):
                flows.delete(flows.by_public_port(Protocol.UDP, port.public))


def _pinned(service: Service, port_set: PortSet) -> list[flows.Flow]:
    return [
        flow
        for port in service.of(Protocol.UDP)
        for flow in flows.by_public_port(Protocol.UDP, port.public)
        if is_answered_by(flow, port.target(port_set))
    ]


def _dnat(service: Service, port: PortMap, port_set: PortSet, family: Family) -> Rule:
    to = destination(port.target(port_set), family)
    return rule(f"{matches(port)} {comment(service)} -j DNAT --to-destination {to}")


def _chains_of(service: Service) -> list[str]:
    return ["SWAPPER-DNAT"] + (["SWAPPER-DNAT-OUT"] if service.classic.output_chain else [])


def _wanted(service: Service, active: PortSet, family: Family) -> Wanted:
    ports = [port for port in service.ports if port.blue.serves(family)]
    dnat = [_dnat(service, port, active, family) for port in ports]
    wanted: Wanted = {("nat", chain): dnat for chain in _chains_of(service) if dnat}
    if pre := [rule(text) for text in closed(service, family)]:
        wanted["raw", "SWAPPER-PRE"] = pre
    loopback, width = ("127.0.0.0/8", 32) if family == 4 else ("::1/128", 128)
    snat = [
        rule(
            f"-s {loopback} -d {address}/{width} -p {port.protocol} -m {port.protocol} --dport {target.port} "
            f"{comment(service)} -j MASQUERADE"
        )
        for port in ports
        for target in (port.blue, port.green)
        if (address := target.address(family))
    ]
    if snat and service.classic.output_chain:
        wanted["nat", "SWAPPER-SNAT"] = snat
    return wanted


def _leads(owned: Wanted, service: Service, port_set: PortSet, family: Family) -> bool:
    """Whether every port's rule leads to a set."""
    rules = owned.get(("nat", "SWAPPER-DNAT"), [])
    return all(_dnat(service, p, port_set, family) in rules for p in service.ports if p.blue.serves(family))


def _sorted(wanted: Wanted) -> dict[tuple[str, str], list[Rule]]:
    """Order within a chain follows the swaps, and means nothing."""
    return {where: sorted(rules) for where, rules in wanted.items()}


def _text(swap: Swap, family: Family) -> str:
    """The recipe's order: append every new rule, then delete every old one."""
    lines = []
    for chain in _chains_of(swap.service):
        for port in swap.service.ports:
            if port.blue.serves(family):
                lines.append(f"-A {chain} {' '.join(_dnat(swap.service, port, swap.to, family))}")
                lines.append(f"-D {chain} {' '.join(_dnat(swap.service, port, swap.source, family))}")
    return "\n".join(["*nat", *lines, "COMMIT", ""])
