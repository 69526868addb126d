"""Other people's firewall rules, as far as a new flow to one port is concerned: values only.

What a rule asks beyond protocol and port (addresses, interfaces, marks) is taken as met: a check that reads these
must not cry wolf. Only rules that no new flow from another host can meet are known as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

__all__ = ["Chain", "Effect", "Rule"]


class Effect(Enum):
    """What a rule does with a packet that meets it."""

    ACCEPT = "accept"
    REFUSE = "refuse"
    TRANSLATE = "translate"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `ports` are destination ports; None stands for any protocol, or any port."""

    effect: Effect
    leads_to: tuple[str, ...] = ()  # chains of the same table
    protocols: frozenset[str] | None = None
    ports: tuple[range, ...] | None = None
    for_new: bool = True  # whether a new flow from another host can meet it
    conditional: bool = True
    undo: str = ""  # the command that deletes it

    def concerns(self, protocol: str, port: int) -> bool:
        """Whether a new flow to that port can meet it."""
        fits = self.protocols is None or protocol in self.protocols
        return self.for_new and fits and (self.ports is None or any(port in part for part in self.ports))


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain. `hook` is empty for one that only other chains lead to."""

    table: str
    name: str
    kind: str = ""  # filter, nat, ...
    hook: str = ""  # input, prerouting, ...
    refuses: bool = False  # by its policy
    rules: tuple[Rule, ...] = ()
    opens: str = ""  # the command that accepts {protocol} {port} in it

    def reached(self, chains: Sequence[Chain]) -> Iterator[Rule]:
        """Its rules, and those of every chain that it leads to."""
        beside = {chain.name: chain for chain in chains if chain.table == self.table}
        waiting, seen = [self.name], {self.name}
        while waiting:
            for rule in beside[waiting.pop()].rules:
                yield rule
                new = [name for name in rule.leads_to if name in beside and name not in seen]
                seen.update(new)
                waiting += new

    def closes(self, protocol: str, port: int, chains: Sequence[Chain]) -> bool:
        """Whether it refuses new flows to a port: by its policy or its last word, where no rule accepts them."""
        if not self.refuses and not any(rule.effect is Effect.REFUSE and not rule.conditional for rule in self.rules):
            return False
        accepting = (rule for rule in self.reached(chains) if rule.effect is Effect.ACCEPT)
        return not any(rule.concerns(protocol, port) for rule in accepting)
