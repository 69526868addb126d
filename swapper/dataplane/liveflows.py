"""Which live flows belong to which port set: told by the backend that answers, or by the conntrack zone."""

from __future__ import annotations

from swapper import flows
from swapper.model import PortSet, Protocol, Service, Target

__all__ = ["by_zone", "clients", "is_answered_by", "tcp_flows"]


def by_zone(service: Service, zones: dict[PortSet, int]) -> dict[PortSet, int | None]:
    """Live flows per set: UDP by the set's zone, TCP by the backend that answers."""
    tcp = tcp_flows(service)
    return {s: tcp[s] + (len(clients(zones[s], service)) if s in zones else 0) for s in PortSet}


def clients(zone: int, service: Service) -> list[flows.Flow]:
    """The flows of a zone that clients opened: not the answers to probes and what a backend sent unasked."""
    public = {port.public for port in service.of(Protocol.UDP)}
    return [flow for flow in flows.in_zone(zone) if flow.dport in public]


def tcp_flows(service: Service) -> dict[PortSet, int]:
    """Live TCP flows per set, told apart by the backend that answers them."""
    counts = dict.fromkeys(PortSet, 0)
    for port in service.of(Protocol.TCP):
        for flow in flows.by_public_port(Protocol.TCP, port.public):
            for port_set in PortSet:
                counts[port_set] += is_answered_by(flow, port.target(port_set))
    return counts


def is_answered_by(flow: flows.Flow, target: Target) -> bool:
    """Whether replies of the flow come from this target."""
    address = target.address(flow.family)
    return flow.reply_sport == target.port and (
        target.on_host or (address is not None and address.packed == flow.reply_src)
    )
