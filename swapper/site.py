"""One deployed service on one host: its backends, releases, journal and receipts, and the questions asked of them."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from swapper import sockets
from swapper.backends import Backends, for_service, lives
from swapper.errors import ConfigError, DeployError, SwapperError
from swapper.journal import Journal
from swapper.model import BackendKind, PortSet, Protocol
from swapper.probes import Endpoint, Probe, probe_for
from swapper.provision import targets
from swapper.receipts import Receipts
from swapper.recipe import ProbeKind
from swapper.releases import Releases
from swapper.retire import retire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from swapper.model import Service, Target
    from swapper.operations import Host

__all__ = ["Site"]


@dataclass(slots=True)
class Site:
    """What the deployments of one service read and change. Raises ConfigError for an external backend."""

    host: Host
    service: Service
    folder: Path = field(init=False)
    backends: Backends = field(init=False)
    releases: Releases = field(init=False)
    journal: Journal = field(init=False)
    receipts: Receipts = field(init=False)

    def __post_init__(self) -> None:
        if self.service.backend is BackendKind.EXTERNAL:
            raise ConfigError(
                f"{self.host.config.path}: services.{self.service.name}.backend.kind: found external, whose backends "
                "Swapper neither starts nor stops; allowed here: process, docker"
            )
        images = None
        if self.service.backend is BackendKind.DOCKER:
            from swapper.engine import EngineImages

            images = EngineImages()
        self.folder = self.host.folder(self.service)
        self.backends = for_service(self.service, self.folder, say=self.say)
        self.releases = Releases(self.service, self.folder, images=images, say=self.say)
        self.journal = Journal(self.folder)
        self.receipts = Receipts(self.folder / "receipts")

    @property
    def say(self) -> Callable[[str], None]:
        """Hears what a person should know."""
        return self.host.say

    @contextmanager
    def locked(self, command: str) -> Iterator[None]:
        """Hold the service's lock; what a deployment that died has left is settled first."""
        with self.host.locked(self.service, command):
            yield

    def serving(self) -> PortSet | None:
        """The set that traffic goes to, made whole, and `current` with it; None before the first deployment.

        Raises SwapperError when kernel and state name different sets: which one is right only the operator knows.
        """
        report = self.host.status(self.service)
        kernel, meant = report.kernel.active, report.meant.active if report.meant else None
        if kernel and meant and kernel is not meant:
            name = self.service.name
            raise SwapperError(
                f"{name}: the kernel carries {kernel}, the state says {meant}; run: swapper apply {name} (follows the "
                f"state), or: swapper swap {name} --to {kernel} (keeps traffic where it is)"
            )
        active = kernel or meant
        if active is None:
            return None
        if not report.in_sync:
            self.say(f"{self.service.name}: repairing first: {'; '.join(report.kernel.faults) or 'no state'}")
            self.host.apply_locked(self.service)
        if self.tag_on(active) not in ("", self._current_tag()):  # a command died after it had moved traffic
            try:
                self.activate(self.tag_on(active))
            except DeployError as error:  # a full disk must not keep a dead backend from being started
                self.say(f"{self.service.name}: {error}")
        return active

    def traffic(self) -> PortSet | None:
        """The set that traffic goes to after a crash: the kernel where it is whole, and the state is made to agree."""
        report = self.host.status(self.service)
        if report.kernel.intact:
            if report.kernel.active and not report.in_sync:
                self.host.adopt(self.service, report.kernel.active)
            return report.kernel.active
        if report.meant is None:
            return None
        return self.host.apply_locked(self.service).active

    def is_alive(self, port_set: PortSet) -> bool:
        """Whether a backend runs on a set."""
        return not self.death(port_set)

    def death(self, port_set: PortSet) -> str:
        """Why no backend runs on a set, in words; "" when one does."""
        backend = self.backends.find(port_set)
        return self.backends.death(backend) if backend else f"there is no backend on {port_set}"

    def tag_on(self, port_set: PortSet) -> str:
        """The release on a set; "" when there is none."""
        backend = self.backends.find(port_set)
        return backend.tag if backend else ""

    def serving_tag(self, port_set: PortSet) -> str:
        """The release that serves, or should, on a set; "" before the first one."""
        return self.tag_on(port_set) or self._current_tag()

    def older_than(self, tag: str) -> str:
        """The release that was fetched before `tag`; "" when there is none."""
        tags = [release.tag for release in self.releases.known()]
        return next(iter(tags[tags.index(tag) + 1 :]), "") if tag in tags else ""

    def misplaced(self, port_set: PortSet) -> str:
        """Why the running backend on a set is not where the configuration says, in words; "" when it is."""
        backend = self.backends.find(port_set)
        if backend is None or not backend.targets or self.backends.death(backend):
            return ""
        told, wanted = (_by_port(text) for text in (backend.targets, targets(self.service, port_set)))
        moved = [
            f"{port}={told[port]} (now {wanted[port]})" for port in told if told[port] != wanted.get(port, told[port])
        ]
        if not moved:
            return ""
        return (
            f"the backend on {port_set}, which serves, was started for {', '.join(moved)}; put that back, change "
            f"{port_set.other} first and deploy, then change {port_set}"
        )

    def activate(self, tag: str) -> None:
        """Let `current` name the release that serves."""
        release = self.releases.get(tag)
        if release:
            self.releases.activate(release)

    def prune(self, previous: str) -> None:
        """Forget old releases, never those that a backend still runs or `previous`, which served before."""
        running = {self.tag_on(port_set) for port_set in PortSet}
        for tag in self.releases.prune(keep=(running | {previous}) - {""}):
            self.backends.forget(tag)
            self.say(f"{self.service.name}: removed release {tag}")

    def clear(self, port_set: PortSet) -> None:
        """Make a set free for a new backend: retire an old one that was kept. Raises DeployError for a stranger."""
        if self.backends.find(port_set):
            self.say(f"{self.service.name}: stopping what was kept on {port_set} ({self.tag_on(port_set)})")
            retire(self, port_set)
        for port in self.service.ports:
            target = port.target(port_set)
            if target.on_host and target.port in sockets.listening("self", port.protocol):
                who = sockets.owner(port.protocol, target.port)
                raise DeployError(f"port {target.port}/{port.protocol} of the {port_set} set is taken by {who}")

    def namespace_pid(self, port_set: PortSet) -> int | str:
        """A process whose sockets are the backend's: its own where it is a container with a network of its own."""
        backend = self.backends.find(port_set)
        return backend.pid if backend and lives(backend) else "self"

    def probe(self, port_set: PortSet, *, public: bool = False) -> Probe:
        """The probe of the backend on a set: at its internal port, or through the public one."""
        health = self.service.recipe.health
        protocol = Protocol.UDP if health.kind is ProbeKind.UDP else Protocol.TCP
        probed = (port for port in self.service.of(protocol) if port.public == health.public)
        port = next(probed, self.service.ports[0])  # kinds that name no port ask of the backend as a whole
        target = port.target(port_set)
        address = str(target.addresses[0]) if target.addresses else "127.0.0.1"
        endpoint = Endpoint(port.protocol, address, target.port)
        if public and self.service.reaches_itself:
            endpoint = Endpoint(port.protocol, _own_address(target), port.public)
        return probe_for(
            health,
            endpoint,
            listening=lambda: self._not_listening(port_set),
            engine=lambda: self._engine_health(port_set),
            environment={
                "SWAPPER_SERVICE": self.service.name,
                "SWAPPER_SET": str(port_set),
                "SWAPPER_ADDRESS": endpoint.address,
                "SWAPPER_PORT": str(endpoint.port),
            },
        )

    def _current_tag(self) -> str:
        current = self.releases.current()
        return current.tag if current else ""

    def _not_listening(self, port_set: PortSet) -> str:
        pid = self.namespace_pid(port_set)
        missing = [
            f"{port.target(port_set).port}/{port.protocol}"
            for port in self.service.ports
            if port.target(port_set).port not in sockets.listening(pid, port.protocol)
        ]
        return f"nothing listens on {', '.join(missing)}" if missing else ""

    def _engine_health(self, port_set: PortSet) -> str:
        backend = self.backends.find(port_set)
        return self.backends.health(backend) if backend else f"there is no backend on {port_set}"


def _by_port(text: str) -> dict[str, str]:
    """`udp 1000=1001, tcp 8080=8081` by public port."""
    return dict(part.split("=", 1) for part in text.split(", ") if "=" in part)


def _own_address(target: Target) -> str:
    """An address of this host from which the public port leads to `target`."""
    if not target.addresses:
        return "127.0.0.1"
    # From 127.0.0.1 a bridge is reached only with route_localnet; connecting a datagram socket sends nothing.
    address = target.addresses[0]
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((str(address), 9))
        return str(sock.getsockname()[0])
