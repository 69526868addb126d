"""Running backends: what both kinds promise, and the record that finds one again after its command has ended."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from swapper.errors import StateError
from swapper.files import replace_file
from swapper.model import BackendKind, PortSet
from swapper.procfs import boot_id, started_ticks

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapper.model import Service
    from swapper.provision import Launch

__all__ = ["Backend", "Backends", "Records", "for_service", "lives"]


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend on one port set: a process, or the first process of a container.

    A process is known by its number together with its start time and the boot: a number alone is used again.
    """

    port_set: PortSet
    tag: str
    pid: int
    started_ticks: int
    boot_id: str
    targets: str = ""  # what it was told to listen on, as `Launch.targets` has it; "" where that is not known
    container: str = ""  # the engine's id


class Backends(Protocol):
    """Starts, asks and stops the backends of one service; never two on one port set."""

    def find(self, port_set: PortSet) -> Backend | None:
        """What there is on a set, running or dead."""

    def launch(self, launch: Launch) -> Backend:
        """Start a backend on a set that has none. Raises DeployError, and leaves nothing behind."""

    def death(self, backend: Backend) -> str:
        """How it ended, in words; "" while it runs."""

    def health(self, backend: Backend) -> str:
        """What the image's own HEALTHCHECK says against it; "" when healthy."""

    def logs(self, port_set: PortSet, lines: int) -> str:
        """The last lines that it wrote; "" where there are none."""

    def confirm(self, backend: Backend) -> None:
        """It serves now: have it come back by itself where its kind can."""

    def forget(self, tag: str) -> None:
        """Take away what is left of a release that is no longer kept."""

    def stop(self, port_set: PortSet) -> bool:
        """Ask it to end, kill it after the grace time, take away what is left; whether it ran."""


class Records:
    """`SET.json` in a folder: the backend that was last started on each set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, port_set: PortSet) -> Backend | None:
        """The backend on record. Raises StateError for a file that cannot be trusted."""
        path = self._path(port_set)
        try:
            document = json.loads(path.read_bytes())
            return Backend(**{**document, "port_set": PortSet(document["port_set"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StateError(
                f"{path}: cannot be trusted ({error}); stop that backend by hand, then: rm {path}"
            ) from error

    def write(self, backend: Backend) -> None:
        """Put a backend on record. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._path(backend.port_set), json.dumps(asdict(backend)).encode() + b"\n")

    def forget(self, port_set: PortSet) -> None:
        """Take a set off the record."""
        self._path(port_set).unlink(missing_ok=True)

    def _path(self, port_set: PortSet) -> Path:
        return self.folder / f"{port_set}.json"


def for_service(service: Service, folder: Path, *, say: Callable[[str], None]) -> Backends:
    """What runs the backends of a service whose backend is not external; `folder` is the service's own."""
    if service.backend is BackendKind.DOCKER:
        from swapper.containers import Containers

        return Containers(service, folder, say=say)
    from swapper.units import Units, is_managed_by_systemd

    if is_managed_by_systemd():
        return Units(service, folder, say=say)
    from swapper.processes import Processes

    return Processes(service, folder, say=say)


def lives(backend: Backend) -> bool:
    """Whether that very process still runs; a zombie does not."""
    return backend.boot_id == boot_id() and started_ticks(backend.pid) == backend.started_ticks
