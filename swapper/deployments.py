"""What the commands ask of the deployments of a service. For an external backend there is nothing to ask, and nothing
more is loaded; neither is it where a question can be answered from a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapper.model import BackendKind

if TYPE_CHECKING:
    from swapper.model import PortSet, Service
    from swapper.operations import Host
    from swapper.site import Site

__all__ = ["Deployments", "site_of"]


class Deployments:
    """The deployments of a host's services; `Host.deployments` when a command of Swapper's opened it."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def recover(self, service: Service) -> None:
        """Finish or undo what a deployment that died has left; the caller holds the service's lock."""
        if _is_deployed(service) and (self.host.folder(service) / "journal.json").exists():
            from swapper.deploy import finish

            finish(site_of(self.host, service))

    def unready(self, service: Service, port_set: PortSet) -> str:
        """Why a set cannot take traffic, in words; "" when it can, or when nobody here knows."""
        return site_of(self.host, service).death(port_set) if _is_deployed(service) else ""

    def misplaced(self, service: Service, port_set: PortSet) -> str:
        """Why rules for a set would lead past its running backend, in words; "" when they would not."""
        return site_of(self.host, service).misplaced(port_set) if _is_deployed(service) else ""

    def moved(self, service: Service, port_set: PortSet) -> None:
        """Traffic has moved to a set: let `current` name the release that serves."""
        if _is_deployed(service):
            site = site_of(self.host, service)
            site.activate(site.tag_on(port_set))


def site_of(host: Host, service: Service) -> Site:
    """Where a service is deployed. Raises ConfigError for an external backend."""
    from swapper.site import Site

    return Site(host, service)


def _is_deployed(service: Service) -> bool:
    return service.backend is not BackendKind.EXTERNAL
