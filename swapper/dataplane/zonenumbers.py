"""Which conntrack zone a port set's backend gets.

A zone belongs to targets: the same targets find the same zone again, even after somebody wiped the rules, so flows in
flight keep their entries; new targets get a zone in which nobody else's flows live.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection

from swapper import flows
from swapper.dataplane.liveflows import is_answered_by
from swapper.errors import KernelRefusedError
from swapper.model import PortSet, Protocol, Service

__all__ = ["FIRST_ZONE", "LAST_ZONE", "Zones", "free_zone"]

Zones = dict[PortSet, int]

FIRST_ZONE = 20480
LAST_ZONE = 36863


def free_zone(service: Service, port_set: PortSet, used: Collection[int]) -> int:
    """The zone for a port set: always the same one for the same targets, unless others are in it.

    `used` are the zones that the rules name already. Raises KernelRefusedError when all 16,384 are taken.
    """
    targets = [(port.public, port.target(port_set)) for port in service.of(Protocol.UDP)]
    size = LAST_ZONE - FIRST_ZONE + 1
    first = zlib.crc32(f"{service.name} {port_set} {[(p, str(t)) for p, t in targets]}".encode()) % size
    for step in range(size):
        zone = FIRST_ZONE + (first + step) % size
        if zone not in used and not _strangers(zone, service, port_set):
            return zone
    raise KernelRefusedError(f"all conntrack zones from {FIRST_ZONE} to {LAST_ZONE} are in use")


def _strangers(zone: int, service: Service, port_set: PortSet) -> bool:
    """Whether flows live in the zone that the set's own backend neither answered nor began."""
    return any(not _is_ours(flow, service, port_set) for flow in flows.in_zone(zone))


def _is_ours(flow: flows.Flow, service: Service, port_set: PortSet) -> bool:
    for port in service.of(Protocol.UDP):
        target = port.target(port_set)
        address = target.address(flow.family)
        if flow.dport == port.public and is_answered_by(flow, target):
            return True
        if flow.sport == target.port and (target.on_host or (address and flow.src == address.packed)):
            return True
    return False
