"""Backends that are containers of the Docker Engine, one name for each port set: so there are never two on one.

With `network = "host"` a container has the host's own ports. On a bridge network it gets the fixed address that the
configuration names, and traffic is sent straight to it. Docker forwards only to ports that are published, so each is,
on a port of 127.0.0.1 that nobody is told: no packet of the service takes that way, nor docker-proxy.
"""

from __future__ import annotations

import contextlib
import math
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from swapper.backends import Backend, Records, lives
from swapper.engine import client, refusals
from swapper.errors import DeployError
from swapper.procfs import boot_id, started_ticks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from swapper.model import PortSet, Service
    from swapper.provision import Launch

__all__ = ["Containers"]


class Containers:
    """The containers of one service; `folder` is the service's own."""

    def __init__(self, service: Service, folder: Path, *, say: Callable[[str], None]) -> None:
        self.service = service
        self.execution = service.recipe.execution
        self.records = Records(folder / "backends")
        self.say = say

    def find(self, port_set: PortSet) -> Backend | None:
        """What there is on a set, running or dead; asks the engine only when the one on record does not run."""
        on_record = self.records.read(port_set)
        if on_record and lives(on_record):
            return on_record
        container = self._container(port_set)
        if container is None:
            self.records.forget(port_set)
            return None
        return self._note(port_set, container)

    def launch(self, launch: Launch) -> Backend:
        """Create and start a container on a set that has none. Raises DeployError, and leaves nothing behind."""
        name = self._name(launch.port_set)
        with refusals(f"starting {name} from {launch.image}"):
            try:
                container = client().containers.create(launch.image, list(launch.command), **self._options(launch))
                container.start()
                container.reload()
            except BaseException:
                self._remove(launch.port_set)
                raise
        return self._note(launch.port_set, container)

    def death(self, backend: Backend) -> str:
        """How it ended, in words; "" while it runs."""
        if lives(backend):
            return ""
        container = self._container(backend.port_set)
        if container is None:
            return "its container is gone"
        state = container.attrs["State"]
        if state["Running"] and not state["Restarting"] and state["Pid"]:
            return ""  # the engine has started it again
        if state["Restarting"]:
            return f"crashes again and again, last with code {state['ExitCode']}"
        said = f": {state['Error']}" if state["Error"] else ""
        return f"exited with code {state['ExitCode']}{' (out of memory)' if state['OOMKilled'] else ''}{said}"

    def health(self, backend: Backend) -> str:
        """What the image's own HEALTHCHECK says against it; "" when healthy."""
        container = self._container(backend.port_set)
        if container is None:
            return "its container is gone"
        health = container.attrs["State"].get("Health")
        if health is None:
            return 'its image has no HEALTHCHECK; use another kind of health than "docker"'
        if health["Status"] == "healthy":
            return ""
        said = (health.get("Log") or [{}])[-1].get("Output", "").strip()
        return f"HEALTHCHECK says {health['Status']}{f': {said[:200]}' if said else ''}"

    def logs(self, port_set: PortSet, lines: int) -> str:
        """The last lines that it wrote; "" where there are none."""
        container = self._container(port_set)
        if container is None:
            return ""
        with refusals(f"reading the log of {self._name(port_set)}"):
            return str(container.logs(tail=lines).decode(errors="replace")).strip()

    def confirm(self, backend: Backend) -> None:
        """It serves now: the engine starts it again after a crash or a reboot."""
        container = self._container(backend.port_set)
        if container is not None:
            with refusals(f"updating {self._name(backend.port_set)}"):
                container.update(restart_policy={"Name": "unless-stopped"})

    def forget(self, tag: str) -> None:
        """Nothing: a container's log goes with it."""

    def stop(self, port_set: PortSet) -> bool:
        """Send its stop signal, kill it after the grace time, remove it; whether it ran."""
        container = self._container(port_set)
        ran = False
        if container is not None:
            with refusals(f"stopping {self._name(port_set)}"):
                ran = bool(container.attrs["State"]["Running"])
                container.stop(timeout=math.ceil(self.execution.stop_grace_s))
            self._remove(port_set)
        self.records.forget(port_set)
        return ran

    def _name(self, port_set: PortSet) -> str:
        return f"swapper-{self.service.name}-{port_set}"

    def _container(self, port_set: PortSet) -> Any:
        from docker.errors import NotFound

        name = self._name(port_set)
        with refusals(f"looking for {name}"):
            try:
                found = client().containers.get(name)
            except NotFound:
                return None
        if found.labels.get("swapper.service") != self.service.name:
            raise DeployError(f"container {name} is not Swapper's; rename it: docker rename {name} OTHER")
        return found

    def _note(self, port_set: PortSet, container: Any) -> Backend:
        pid = int(container.attrs["State"]["Pid"])
        ticks = (started_ticks(pid) or 0) if pid else 0
        tag = str(container.labels.get("swapper.release", ""))
        targets = str(container.labels.get("swapper.targets", ""))
        backend = Backend(port_set, tag, pid, ticks, boot_id(), targets, str(container.id))
        with contextlib.suppress(OSError):  # a full disk: the engine knows it all the same
            self.records.write(backend)
        return backend

    def _remove(self, port_set: PortSet) -> None:
        container = self._container(port_set)
        if container is not None:
            with refusals(f"removing {self._name(port_set)}"):
                container.remove(force=True, v=True)

    def _options(self, launch: Launch) -> dict[str, Any]:
        execution = self.execution
        options: dict[str, Any] = {
            "name": self._name(launch.port_set),
            "environment": launch.environment,
            "volumes": list(launch.volumes),
            "labels": {
                **dict(execution.labels),
                "swapper.service": self.service.name,
                "swapper.set": str(launch.port_set),
                "swapper.release": launch.tag,
                "swapper.targets": launch.targets,
            },
            "user": execution.user or None,
            "cap_add": list(execution.capabilities),
            "stop_signal": execution.stop_signal,
            "mem_limit": execution.memory_bytes,
            "nano_cpus": int(execution.cpus * 1e9) if execution.cpus else None,
        }
        if execution.network == "host":
            return options | {"network_mode": "host"}
        targets = [(port.protocol, port.target(launch.port_set)) for port in self.service.ports]
        addresses = {f"ipv{a.version}_address": str(a) for _, target in targets for a in target.addresses}
        self._check_network(next(str(address) for _, target in targets for address in target.addresses))
        endpoint = client().api.create_endpoint_config(**addresses)
        return options | {
            "network": execution.network,
            "networking_config": {execution.network: endpoint},
            "ports": {f"{target.port}/{protocol}": ("127.0.0.1", None) for protocol, target in targets},
        }

    def _check_network(self, address: str) -> None:
        from docker.errors import NotFound

        name = self.execution.network
        try:
            client().networks.get(name)
        except NotFound as error:
            subnet = ip_interface(f"{address}/{64 if ':' in address else 24}").network
            raise DeployError(
                f"the engine has no network {name}; make it with: docker network create --subnet {subnet} {name}"
            ) from error
