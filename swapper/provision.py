"""What exactly is to run on a port set: ports, addresses, environment and templates filled in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from swapper.configrecipe import TEMPLATE

if TYPE_CHECKING:
    from pathlib import Path

    from swapper.model import PortMap, PortSet, Service

__all__ = ["Launch", "provision", "targets"]


@dataclass(frozen=True, slots=True)
class Launch:
    """One backend to be started; everything in it is final."""

    service: Service
    port_set: PortSet
    tag: str
    image: str  # empty for a process
    files: Path
    command: tuple[str, ...]
    environment: dict[str, str]
    volumes: tuple[str, ...]

    @property
    def targets(self) -> str:
        """What the backend is to listen on: `udp 1000=1001, tcp 8080=8081`."""
        return targets(self.service, self.port_set)


def targets(service: Service, port_set: PortSet) -> str:
    """Where `port_set` receives each public port: `udp 1000=1001, tcp 8080=8081`."""
    return ", ".join(f"{port.protocol} {port.public}={port.target(port_set)}" for port in service.ports)


def provision(service: Service, port_set: PortSet, *, tag: str, image: str, files: Path) -> Launch:
    """Fill in the templates of `service` for a release on `port_set`."""
    execution = service.recipe.execution
    ports = {f"{port.protocol}_{port.public}": str(port.target(port_set).port) for port in service.ports}
    values = {
        "service": service.name,
        "set": str(port_set),
        "tag": tag,
        "files": str(files),
        "address": _address(service.ports[0], port_set),
        **ports,
    }

    def filled(text: str) -> str:
        return TEMPLATE.sub(lambda match: values[match[1]], text)

    given = {
        "SWAPPER_SERVICE": service.name,
        "SWAPPER_SET": str(port_set),
        "SWAPPER_RELEASE": tag,
        **{f"SWAPPER_{name.upper()}": port for name, port in ports.items()},
    }
    return Launch(
        service=service,
        port_set=port_set,
        tag=tag,
        image=image,
        files=files,
        command=tuple(map(filled, execution.command)),
        environment=given | {name: filled(text) for name, text in execution.environment},
        volumes=tuple(map(filled, execution.volumes)),
    )


def _address(port: PortMap, port_set: PortSet) -> str:
    """Where the backend is reached from this host."""
    addresses = port.target(port_set).addresses
    return str(addresses[0]) if addresses else "127.0.0.1"
