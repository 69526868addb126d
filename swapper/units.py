"""Backends that are transient services of systemd: started again when they crash, each with a log of its own.

The unit's name is the port set's, so there are never two on one; systemd knows what runs, the record only saves asking.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from swapper.backends import Backend, lives
from swapper.errors import DeployError
from swapper.processes import Processes
from swapper.procfs import boot_id, started_ticks

if TYPE_CHECKING:
    from swapper.model import PortSet
    from swapper.provision import Launch

__all__ = ["Units", "is_managed_by_systemd"]

TIMEOUT_S = 30
NOT_STARTED = range(200, 243)  # systemd.exec(5): why there was no program yet


def is_managed_by_systemd() -> bool:
    """Whether systemd runs this host, and its services have the network that the caller has."""
    return (
        Path("/run/systemd/system").is_dir()
        and shutil.which("systemd-run") is not None
        and Path("/proc/self/net/dev").samefile("/proc/1/net/dev")  # ns/net itself needs CAP_SYS_PTRACE
    )


class Units(Processes):
    """The services of one Swapper service."""

    def find(self, port_set: PortSet) -> Backend | None:
        """What there is on a set, running or dead; asks systemd only when the one on record does not run."""
        on_record = self.records.read(port_set)
        if on_record and lives(on_record):
            return on_record
        shown = self._shown(port_set)
        running, ended = int(shown.get("MainPID", "0")), int(shown.get("ExecMainPID", "0"))
        if not (running or ended):
            return on_record
        tag, ticks = shown["Description"].rpartition(" ")[2], started_ticks(running) or 0 if running else 0
        targets = on_record.targets if on_record else ""
        backend = Backend(port_set, tag, running or ended, ticks, boot_id(), targets)
        self.records.write(backend)
        return backend

    def launch(self, launch: Launch) -> Backend:
        """Start a unit on a set that has none. Raises DeployError, and leaves nothing behind."""
        self.log_folder.mkdir(parents=True, exist_ok=True)
        log = self._log(launch.port_set, launch.tag)
        done = _ran(
            "systemd-run",
            *("--quiet", "--service-type=exec", f"--unit={self._unit(launch.port_set)}"),
            f"--description=Swapper: {self.name} {launch.port_set} {launch.tag}",
            *(f"--property=StandardOutput=append:{log}", f"--property=StandardError=append:{log}"),
            *("--property=Restart=on-failure", "--property=RestartSec=1"),
            f"--property=KillSignal={self.execution.stop_signal}",
            f"--property=TimeoutStopSec={self.execution.stop_grace_s}",
            f"--working-directory={launch.files if launch.files.is_dir() else '/'}",
            *(f"--setenv={name}={value}" for name, value in launch.environment.items()),
            *([f"--uid={self.execution.user}"] if self.execution.user else []),
            *("--", *(word.replace("$", "$$") for word in launch.command)),  # systemd would fill in variables
        )
        backend = self.find(launch.port_set)
        status = int(self._shown(launch.port_set).get("ExecMainStatus", "0"))
        # systemd-run also fails for a program that ran and ended at once: that is for its health to say.
        if backend is None or (done.returncode and status in NOT_STARTED):
            said = done.stderr.strip() or f"systemd says {status}, see systemd.exec(5), Process Exit Codes"
            self.stop(launch.port_set)
            raise DeployError(f"{launch.command[0]} cannot be started: {said}")
        backend = replace(backend, targets=launch.targets)
        self.records.write(backend)
        return backend

    def death(self, backend: Backend) -> str:
        """How it ended, in words; "" while it runs. One that systemd has started again is another."""
        if lives(backend):
            return ""
        shown = self._shown(backend.port_set)
        status, result = shown.get("ExecMainStatus", "0"), shown.get("Result", "")
        return f"ended with exit code {status} ({result})" if status != "0" else f"process {backend.pid} has ended"

    def stop(self, port_set: PortSet) -> bool:
        """Have systemd ask it to end, kill it after the grace time, and forget it; whether it ran."""
        backend = self.find(port_set)
        ran = backend is not None and lives(backend)
        unit = self._unit(port_set)
        if self._shown(port_set).get("LoadState") == "loaded":
            done = _ran("systemctl", "stop", unit, timeout_s=TIMEOUT_S + self.execution.stop_grace_s)
            if done.returncode:
                raise DeployError(f"systemd does not stop {unit}: {done.stderr.strip()}")
            _ran("systemctl", "reset-failed", unit)  # one that was killed, or ended by itself, would keep its name
        self.records.forget(port_set)
        return ran

    def _unit(self, port_set: PortSet) -> str:
        return f"swapper-{self.name}-{port_set}.service"

    def _shown(self, port_set: PortSet) -> dict[str, str]:
        wanted = "LoadState,MainPID,ExecMainPID,Description,ExecMainStatus,Result"
        lines = _ran("systemctl", "show", f"--property={wanted}", self._unit(port_set)).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


def _ran(*argv: str, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run one of systemd's tools. Raises DeployError when it does not end."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise DeployError(f"{argv[0]} did not end within {timeout_s:.0f} s") from error
