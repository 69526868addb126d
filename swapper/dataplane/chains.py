"""Swapper's own iptables chains: shared ones in which each rule carries its service's name, and private ones.

The shared chains are entered by one jump from the built-in chain of the same hook. Nothing else in any table is
changed. Knows the shape of the chains, not what the rules in them mean.
"""

from __future__ import annotations

from collections.abc import Iterable

from swapper.dataplane.iptables import IptablesEngine, Rule, Rules
from swapper.model import Family, PortMap, Service

__all__ = [
    "HOOKS",
    "PRIVATE",
    "Chains",
    "Wanted",
    "closed",
    "comment",
    "is_zones",
    "matches",
    "owner",
    "private_names",
    "replies_first",
]

# (table, built-in chain) -> the shared chain that it jumps to
HOOKS = {
    ("raw", "PREROUTING"): "SWAPPER-PRE",
    ("raw", "OUTPUT"): "SWAPPER-OUT",
    ("nat", "PREROUTING"): "SWAPPER-DNAT",
    ("nat", "OUTPUT"): "SWAPPER-DNAT-OUT",
    ("nat", "POSTROUTING"): "SWAPPER-SNAT",
}
# Every way to name a socket of this host, a rule each. IPv6 has no broadcast, and there xt_addrtype wants an address
# to be all the types of a list at once (match_type6 in net/netfilter/xt_addrtype.c).
REFUSED: dict[Family, tuple[str, ...]] = {
    4: ("LOCAL,BROADCAST,ANYCAST,MULTICAST",),
    6: ("LOCAL", "ANYCAST", "MULTICAST"),
}
PRIVATE = "SW-"  # private chains: this, the service's name and perhaps a suffix
Wanted = dict[tuple[str, str], list[Rule]]  # (table, chain) -> a service's rules in it


class Chains:
    """What one engine holds of Swapper's chains."""

    def __init__(self, engine: IptablesEngine) -> None:
        self.engine = engine

    def owned(self, rules: Rules, name: str) -> Wanted:
        """The rules of one service, private chains and the shared chains that hold some of its rules."""
        found: Wanted = {}
        for table, chains in rules.items():
            for chain, present in chains.items():
                if chain in HOOKS.values():
                    mine = [r for r in present if owner(r) == name]
                    if mine:
                        found[table, chain] = mine
                elif chain in private_names(name):
                    found[table, chain] = present
        return found

    def strangers(self, rules: Rules) -> list[str]:
        """What somebody else did to the shared chains, in words."""
        faults = []
        for (table, hook), chain in HOOKS.items():
            chains = rules.get(table, {})
            if chain not in chains:
                continue
            jumps = [r for r in chains.get(hook, []) if r == ("-j", chain)]
            if len(jumps) != 1:
                faults.append(f"table {table}: {hook} jumps to {chain} {len(jumps)} times, not once")
            foreign = [r for r in chains[chain] if owner(r) is None]
            if foreign:
                faults.append(f"table {table}: chain {chain} holds a rule of somebody else: {' '.join(foreign[0])}")
        return faults

    def difference(self, table: str, rules: Rules, name: str, wanted: Wanted) -> str:
        """The text that makes `wanted` what the service has in one table; "" when it has exactly that."""
        present = rules.get(table, {})
        owned = self.owned(rules, name)
        lines: list[str] = []
        jumps: list[str] = []
        for (its_table, hook), chain in HOOKS.items():
            if its_table != table:
                continue
            mine = wanted.get((table, chain), [])
            ours = [r for r in present.get(chain, []) if owner(r) is not None]
            if [r for r in ours if owner(r) == name] != mine:
                ours = [*(r for r in ours if owner(r) != name), *mine]
            after = sorted(ours, key=replies_first)
            jumping = present.get(hook, []).count(("-j", chain))
            jumps += [f"-D {hook} -j {chain}"] * (jumping if not after else jumping - 1)
            if after:
                if present.get(chain) != after:
                    lines += [f":{chain} - [0:0]", *(f"-A {chain} {' '.join(r)}" for r in after)]
                jumps += [f"-I {hook} 1 -j {chain}"] * (jumping == 0)
            elif chain in present:
                jumps += [f"-F {chain}", f"-X {chain}"]
        private = {chain: body for (its, chain), body in wanted.items() if its == table and chain.startswith(PRIVATE)}
        fresh = [
            line
            for chain, body in private.items()
            if present.get(chain) != body
            for line in (f":{chain} - [0:0]", *(f"-A {chain} {' '.join(r)}" for r in body))
        ]
        gone = [c for (its, c) in owned if its == table and c.startswith(PRIVATE) and c not in private]
        declared = sorted(fresh, key=lambda line: not line.startswith(":"))  # a rule may jump to a chain below it
        removed = [f"-F {c}" for c in gone] + [f"-X {c}" for c in gone]
        body = declared + lines + jumps + removed
        return "\n".join([f"*{table}", *body, "COMMIT", ""]) if body else ""


def owner(words: Rule) -> str | None:
    """The service that a rule in a shared chain belongs to, None for somebody else's."""
    if "--comment" in words:
        said = words[words.index("--comment") + 1]
        if said.startswith("swapper-"):
            return said.removeprefix("swapper-")
    return None


def private_names(name: str) -> Iterable[str]:
    """The private chains that a service can have."""
    return (PRIVATE + name, f"{PRIVATE}{name}.stay")


def is_zones(owned: Wanted, name: str) -> bool:
    """Whether a service's rules are of the zones dataplane; classic keeps its own in the same shared chains."""
    return ("raw", PRIVATE + name) in owned


def comment(service: Service) -> str:
    """The words that mark a rule as a service's."""
    return f"-m comment --comment swapper-{service.name}"


def matches(port: PortMap) -> str:
    """The words that select packets of clients to a public port of this host."""
    protocol = port.protocol
    return f"-p {protocol} -m {protocol} --dport {port.public} -m addrtype --dst-type LOCAL"


def closed(service: Service, family: Family) -> list[str]:
    """The rules that drop outsiders who name an internal port; the raw table still sees what the client wrote."""
    rules = []
    for port in service.ports if service.protect else ():
        for target in (port.blue, port.green):
            proto = f"-p {port.protocol} -m {port.protocol} --dport {target.port}"
            if target.on_host:
                rules += [
                    f"! -i lo {proto} -m addrtype --dst-type {named} {comment(service)} -j DROP"
                    for named in REFUSED[family]
                ]
            elif address := target.address(family):
                width = 32 if family == 4 else 128
                rules.append(f"-d {address}/{width} ! -i lo {proto} {comment(service)} -j DROP")
    return rules


def replies_first(words: Rule) -> int:
    """The order in the shared chains: closed ports, then replies to their zone, then clients."""
    target = words[words.index("-j") + 1] if "-j" in words else ""
    return {"DROP": 0, "CT": 1}.get(target, 2)
