"""Drain on nftables: the flows that may stay with the old backend, as sets that empty themselves.

A draining service has one chain and one set for each family, reached through the verdict map `stay`. A flow's own
packets refresh its timeout; the map's elements carry the deadline, so the kernel cuts what is left even when the
command that began the drain is dead. No conntrack entry is ever deleted.
"""

from __future__ import annotations

from swapper.dataplane.libnftables import Nftables
from swapper.flows import Flow
from swapper.model import FAMILIES, PortSet, Protocol, Service, Swap

__all__ = ["StayNft"]

KEY = {4: "ip saddr . udp sport . udp dport", 6: "ip6 saddr . udp sport . udp dport"}
SIZE = 1 << 20
GRACE_S = 1.0  # the command that waits cuts at the deadline; the kernel does where there is none any more


class StayNft:
    """The drains of one table; remembers which services have one, as last read from the kernel or begun here."""

    def __init__(self, nft: Nftables, table: str) -> None:
        self._nft = nft
        self._table = f"inet {table}"
        self._name = table
        self._on: dict[str, PortSet] = {}

    def observe(self, service: Service) -> PortSet | None:
        """The set that flows of `service` may stay on, None when nothing drains (left-overs are remembered)."""
        chains = {o["chain"]["name"] for o in self._nft.table(self._name, elements=False) if "chain" in o}
        found = next((s for s in PortSet if f"stay_{service.name}_{s}" in chains), None)
        if found is None:
            self._on.pop(service.name, None)
            return None
        self._on[service.name] = found
        live = {str(key) for key in self._live()}
        return found if any(str(port.public) in live for port in service.of(Protocol.UDP)) else None

    def is_on(self, service: Service) -> bool:
        """Whether anything of a drain was there when last read, live or left over."""
        return service.name in self._on

    def renewed(self) -> str:
        """The text that empties the map of all drains and puts back those whose deadline has not passed."""
        live = "".join(
            f"add element {self._table} stay {{ {key['elem']['val']} timeout {key['elem']['timeout']}s "
            f'expires {max(1, key["elem"]["expires"])}s comment "{key["elem"]["comment"]}" '
            f": jump {verdict['jump']['target']} }}\n"
            for key, verdict in self._nft.map_elements(self._name, "stay")
        )
        return f"flush map {self._table} stay\n{live}"

    def left(self, service: Service) -> int:
        """How many flows may still stay."""
        port_set = self._on.get(service.name)
        if port_set is None:
            return 0
        names = [_set(service.name, port_set, family) for family in (4, 6)]
        return sum(len(self._nft.set_elements(self._name, name)) for name in names)

    def learn(self, swap: Swap, zone: int) -> bool:
        """Begin to note the flows that pass, before the swap; False when another drain of the service is under way.

        They are also led into the source set's `zone`, which is where they go anyway, until the swap: a packet that
        meets the chain as it was before the commit may look its port up in the map as it is afterwards.
        """
        if swap.service.name in self._on:
            return False
        chain = _chain(swap.service.name, swap.source)
        text = self._containers(swap) + "".join(
            f"add rule {self._table} {chain} update @{_set(swap.service.name, swap.source, family)} "  # noqa: S608 - nft's
            f"{{ {KEY[family]} timeout {_milliseconds(swap.service.idle_timeout_s)} }} ct zone set {zone} accept\n"
            for family in FAMILIES
        )
        self._nft.run(text + self._jumps(swap))
        self._on[swap.service.name] = swap.source
        return True

    def keep(self, swap: Swap, zone: int, flows: list[Flow], *, learning: bool = False) -> str:
        """The text that lets `flows`, and those learnt, stay in the source set's `zone` until idle or the deadline."""
        service, chain = swap.service, _chain(swap.service.name, swap.source)
        idle = _milliseconds(service.idle_timeout_s)
        lines = [f"flush chain {self._table} {chain}\n"] if learning else [self._containers(swap)]
        for family in FAMILIES:
            name = _set(service.name, swap.source, family)
            keys = [f"{f.source_text()} . {f.sport} . {f.dport} timeout {idle}" for f in flows if f.family == family]
            if keys:
                lines.append(f"add element {self._table} {name} {{ {', '.join(keys)} }}\n")
            lines.append(
                f"add rule {self._table} {chain} {KEY[family]} @{name} "  # noqa: S608 - nft's update, not SQL's
                f"update @{name} {{ {KEY[family]} timeout {idle} }} ct zone set {zone} accept\n"
            )
        if learning:  # the deadline counts from the swap, not from when learning began
            lines.append(self._unhook(chain, [port.public for port in service.of(Protocol.UDP)]))
        return "".join(lines) + self._jumps(swap)

    def end(self, service: Service) -> str:
        """The text that ends the drain of a service; "" when it has none."""
        port_set = self._on.get(service.name)
        if port_set is None:
            return ""
        return self._end(service.name, port_set, [port.public for port in service.of(Protocol.UDP)])

    def end_of(self, name: str) -> str:
        """The same from the kernel alone, for a service of which nothing was read, or whose ports have changed."""
        objects = self._nft.table(self._name, elements=False)
        chains = {o["chain"]["name"] for o in objects if "chain" in o}
        return "".join(
            self._end(name, port_set, [int(key) for key, target in self._live().items() if target == chain])
            for port_set in PortSet
            if (chain := _chain(name, port_set)) in chains
        )

    def committed(self, swap: Swap) -> None:
        """Note that a swap's text was committed."""
        if swap.udp == "drain" and swap.service.of(Protocol.UDP):
            self._on[swap.service.name] = swap.source
        else:
            self._on.pop(swap.service.name, None)

    def ended(self, name: str) -> None:
        """Note that a drain's end was committed."""
        self._on.pop(name, None)

    def _live(self) -> dict[str, str]:
        """Public port -> chain, of the drains whose deadline has not passed."""
        found: dict[str, str] = {}
        for raw in self._nft.map_elements(self._name, "stay"):
            key, verdict = raw
            found[str(key["elem"]["val"])] = verdict["jump"]["target"]
        return found

    def _containers(self, swap: Swap) -> str:
        name, source = swap.service.name, swap.source
        return f"add chain {self._table} {_chain(name, source)}\n" + "".join(
            f"add set {self._table} {_set(name, source, family)} "
            f"{{ typeof {KEY[family]}; size {SIZE}; flags dynamic,timeout; }}\n"
            for family in FAMILIES
        )

    def _jumps(self, swap: Swap) -> str:
        chain = _chain(swap.service.name, swap.source)
        deadline = _milliseconds(swap.service.drain_timeout_s + GRACE_S)
        return "".join(
            f"add element {self._table} stay "
            f'{{ {port.public} timeout {deadline} comment "{swap.service.name}" : jump {chain} }}\n'
            for port in swap.service.of(Protocol.UDP)
        )

    def _end(self, name: str, port_set: PortSet, ports: list[int]) -> str:
        chain = _chain(name, port_set)
        gone = self._unhook(chain, ports) + f"flush chain {self._table} {chain}\ndelete chain {self._table} {chain}\n"
        return gone + "".join(f"delete set {self._table} {_set(name, port_set, family)}\n" for family in FAMILIES)

    def _unhook(self, chain: str, ports: list[int]) -> str:
        """Take the ports' jumps out; adding an element first makes deleting it certain, had it reached its deadline."""
        return "".join(
            f"add element {self._table} stay {{ {port} : jump {chain} }}\n"
            f"delete element {self._table} stay {{ {port} }}\n"
            for port in ports
        )


def _chain(name: str, port_set: PortSet) -> str:
    return f"stay_{name}_{port_set}"


def _set(name: str, port_set: PortSet, family: int) -> str:
    return f"stay{family}_{name}_{port_set}"


def _milliseconds(seconds: float) -> str:
    """A timeout in nft's notation, which takes whole milliseconds."""
    return f"{max(1, round(seconds * 1000))}ms"
