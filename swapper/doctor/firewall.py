"""Whether other people's rules close an internal port, or translate a public one as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from swapper.doctor import rules_iptables, rules_nft
from swapper.doctor.findings import Level, Problem
from swapper.doctor.rules import Chain, Effect

if TYPE_CHECKING:
    from swapper.config import Config

__all__ = ["closed", "rivals"]


def closed(config: Config) -> Iterator[Problem]:
    """Whether an INPUT chain drops what was translated to an internal port: there it names the internal one."""
    chains = _foreign()
    for chain in chains:
        if chain.kind != "filter" or chain.hook != "input":
            continue
        for service in config.services.values():
            internal = [(p.protocol, t.port) for p in service.ports for t in (p.blue, p.green) if t.on_host]
            shut = [(protocol, port) for protocol, port in internal if chain.closes(protocol, port, chains)]
            if shut:
                named = ", ".join(f"{protocol} {port}" for protocol, port in shut)
                found = f"{service.name}: {chain.table} {chain.name} drops what comes to its internal ports {named}"
                mend = " && ".join(chain.opens.format(protocol=protocol, port=port) for protocol, port in shut)
                yield Problem(Level.FAIL, found, mend)


def rivals(config: Config) -> Iterator[Problem]:
    """Whether a nat rule of somebody else names a public port: which one wins depends on who came first."""
    chains = _foreign()
    rules = {
        rule.undo: rule
        for chain in chains
        if chain.kind == "nat" and chain.hook in ("prerouting", "output")
        for rule in chain.reached(chains)
        if rule.effect is Effect.TRANSLATE and rule.ports is not None
    }
    for service in config.services.values():
        for port in service.ports:
            for undo, rule in rules.items():
                if rule.concerns(port.protocol, port.public):
                    found = (
                        f"{service.name}: another rule translates {port.protocol} port {port.public}; "
                        "if Docker wrote it, a container publishes that port, and has to publish another one"
                    )
                    yield Problem(Level.FAIL, found, undo)


def _foreign() -> list[Chain]:
    """Every chain of this network namespace that is not Swapper's."""
    iptables = rules_iptables.read()
    seen = {chain.table for chain in iptables}
    # nft shows the matches and targets of iptables only by name.
    return [*iptables, *(chain for chain in rules_nft.read() if chain.table not in seen)]
