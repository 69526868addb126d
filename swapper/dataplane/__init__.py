"""The kernel mechanisms that carry a public port to the active port set, and which of them this host has."""

from __future__ import annotations

from dataclasses import dataclass

from swapper.dataplane import traces
from swapper.dataplane.base import Dataplane, Draining, Observation
from swapper.errors import KernelRefusedError, MissingError, SwapperError
from swapper.model import DataplaneName, Engine, Service

__all__ = ["Dataplane", "Draining", "Observation", "TakenOut", "for_service", "open_dataplane", "take_out"]

# In order of preference: the first one that this host has, and that takes the rules, is the default.
ENGINES = {
    DataplaneName.ZONES: (Engine.NFTABLES, Engine.IPTABLES_NFT, Engine.IPTABLES_LEGACY),
    DataplaneName.STATELESS: (Engine.NFTABLES,),
    DataplaneName.CLASSIC: (Engine.IPTABLES_NFT, Engine.IPTABLES_LEGACY),
}


@dataclass(frozen=True, slots=True)
class TakenOut:
    """What became of a service's rules: whether there were any, and where some may remain, and why."""

    found: bool
    remaining: tuple[tuple[str, SwapperError], ...] = ()


def for_service(service: Service) -> Dataplane:
    """The dataplane that the service's configuration asks for, on its engine or the best that this host has.

    Raises MissingError, which for each engine that was tried says what it lacks and the command that brings it.
    """
    lacks = []
    engines = (service.engine,) if service.engine else ENGINES[service.dataplane]
    for engine in engines:
        try:
            plane = open_dataplane(service.dataplane, engine)
            if len(engines) > 1:
                plane.rehearse()  # what can be read alone is no choice for who wants to swap
        except (MissingError, KernelRefusedError) as error:
            lacks.append(f"{engine}: {error}")
        else:
            return plane
    raise MissingError(f"dataplane {service.dataplane} has no engine on this host\n" + "\n".join(lacks))


def take_out(name: str, *, but: Dataplane | None = None) -> TakenOut:
    """Take the service called `name` out of every dataplane, except one.

    An engine of which the kernel shows nothing is not even opened. One that fails although it may hold rules does not
    keep the others from being cleared, and is told of. Raises MissingError without CAP_NET_ADMIN.
    """
    found, remaining = False, []
    held = traces.read()
    for dataplane, engines in ENGINES.items():
        for engine in engines:
            if but is not None and (dataplane, engine) == (but.name, but.engine):
                continue
            if not held.may_hold(dataplane, engine, name, beside=but is not None and engine is but.engine):
                continue
            try:
                found |= open_dataplane(dataplane, engine).uninstall(name)
            except SwapperError as error:
                remaining.append((f"{dataplane} on {engine}", error))
    return TakenOut(found, tuple(remaining))


def open_dataplane(name: DataplaneName, engine: Engine) -> Dataplane:
    """One dataplane in the network namespace of the caller; only what it needs is imported.

    Raises MissingError when the host lacks the engine.
    """
    if engine is not Engine.IPTABLES_LEGACY and not traces.has_nf_tables():
        raise MissingError("this kernel has no nf_tables; load it: modprobe nf_tables")
    if engine is Engine.NFTABLES:
        if name is DataplaneName.STATELESS:
            from swapper.dataplane.stateless import Stateless

            return Stateless()
        from swapper.dataplane.zones_nft import ZonesNft

        return ZonesNft()
    from swapper.dataplane.iptables import IptablesLegacy, IptablesNft

    programmed = IptablesNft() if engine is Engine.IPTABLES_NFT else IptablesLegacy()
    if name is DataplaneName.CLASSIC:
        from swapper.dataplane.classic import ClassicIptables

        return ClassicIptables(programmed)
    from swapper.dataplane.zones_ipt import ZonesIptables

    return ZonesIptables(programmed)
