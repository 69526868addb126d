"""The kernel mechanisms that carry a public port to the active port set, and which of them this host has."""

from __future__ import annotations

from collections.abc import Iterator

from swapper.dataplane.base import Dataplane, Draining, Observation
from swapper.errors import MissingError
from swapper.model import DataplaneName, Engine, Service

__all__ = ["Dataplane", "Draining", "Observation", "every", "for_service", "open_dataplane"]

# In order of preference: the first one that this host has is the default.
ENGINES = {
    DataplaneName.ZONES: (Engine.NFTABLES, Engine.IPTABLES_NFT, Engine.IPTABLES_LEGACY),
    DataplaneName.STATELESS: (Engine.NFTABLES,),
    DataplaneName.CLASSIC: (Engine.IPTABLES_NFT, Engine.IPTABLES_LEGACY),
}


def for_service(service: Service) -> Dataplane:
    """The dataplane that the service's configuration asks for, on its engine or the best that this host has.

    Raises MissingError, which for each engine that was tried says what it lacks and the command that brings it.
    """
    lacks = []
    for engine in (service.engine,) if service.engine else ENGINES[service.dataplane]:
        try:
            return open_dataplane(service.dataplane, engine)
        except MissingError as error:
            lacks.append(f"{engine}: {error}")
    raise MissingError(f"dataplane {service.dataplane} has no engine on this host\n" + "\n".join(lacks))


def every(*, but: Dataplane | None = None) -> Iterator[Dataplane]:
    """Every dataplane that this host has, except one that is open already."""
    for name, engines in ENGINES.items():
        for engine in engines:
            if but is not None and (name, engine) == (but.name, but.engine):
                continue
            try:
                yield open_dataplane(name, engine)
            except MissingError:
                continue


def open_dataplane(name: DataplaneName, engine: Engine) -> Dataplane:
    """One dataplane in the network namespace of the caller; only what it needs is imported.

    Raises MissingError when the host lacks the engine.
    """
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
