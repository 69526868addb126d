"""What moves the traffic in a run: the `swapper` command, or a command of somebody else's that is being measured."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from harness import specs

if TYPE_CHECKING:
    from harness.netns import Namespace
    from harness.scenario import Scenario
    from harness.topology import Topology

__all__ = [
    "CommandSwitch",
    "SwapperError",
    "SwapperSwitch",
    "Switch",
    "SwitchError",
    "SwitchFactory",
    "swapper_command",
    "switch_for",
]

SHOWN_LINES: Final = 12
SHOWN_BYTES: Final = 1 << 16


class SwitchError(Exception):
    """What moves the traffic failed; the message names it and quotes what it said."""


class SwapperError(subprocess.CalledProcessError):
    """The `swapper` command refused: its exit code says why, as no other command's does."""


class Switch(Protocol):
    """Carries the public ports to blue at first, then to and fro. Raises SwitchError or CalledProcessError."""

    in_kernel: bool  # nothing else on the host touches a datagram: the kernel's counters have to agree with the logs
    said: str  # by the last call

    def begin(self) -> None:
        """Carry the service, on blue."""

    def swap(self, to: str) -> float:
        """Move traffic to a port set; how long the commit itself took, in ms, 0 where nobody knows."""

    def end(self) -> None:
        """Take away what would outlive the namespace."""


SwitchFactory = Callable[["Namespace", Path], Switch]  # for one run: its host, and a folder of its own


class SwapperSwitch:
    """The `swapper` command, as a user would type it; SwapperError where it refuses."""

    in_kernel = True

    def __init__(self, host: Namespace, config: Path, *, product: Path | None = None) -> None:
        self.host, self.config = host, config
        self.command = swapper_command(product)
        self.said = ""

    def begin(self) -> None:
        """`swapper apply`."""
        self._run("apply", "game")

    def swap(self, to: str) -> float:
        """`swapper swap`."""
        return float(self._run("swap", "game", "--to", to)["commit_ms"])

    def end(self) -> None:
        """Nothing: rules go with their namespace."""

    def _run(self, *arguments: str) -> dict[str, Any]:
        argv = [*self.command, *arguments, "--config", str(self.config), "--json"]
        try:
            done = self.host.run(argv)
        except subprocess.CalledProcessError as error:
            raise SwapperError(error.returncode, error.cmd, error.stdout, error.stderr) from error
        self.said = done.stdout.strip()
        document: dict[str, Any] = json.loads(self.said)
        return document


class CommandSwitch:
    """Somebody's own swap script: run once before the traffic, with SWAP_FROM empty, then once for each swap.

    Its environment says what is meant: SWAP_PUBLIC, SWAP_FROM and SWAP_TO (sets), SWAP_FROM_PORT and SWAP_TO_PORT, and
    where the scenario has TCP the same with _TCP_; SWAP_STATE is a folder of this run's own.
    """

    in_kernel = False  # it may have started a proxy

    def __init__(self, host: Namespace, scenario: Scenario, folder: Path) -> None:
        self.host, self.tcp, self.timeout_s = host, scenario.tcp, scenario.swap_timeout_s
        self.argv = shlex.split(scenario.swap_command)
        self.said = ""
        self.state = folder / "swap-state"
        self.state.mkdir()
        self.active = ""

    def begin(self) -> None:
        """The first call."""
        self.swap("blue")

    def swap(self, to: str) -> float:
        """One call; it must end within the scenario's `swap_timeout_s`."""
        ports = [("SWAP_", specs.PUBLIC, specs.INTERNAL)]
        if self.tcp:
            ports.append(("SWAP_TCP_", specs.TCP_PUBLIC, specs.TCP_INTERNAL))
        told = {"SWAP_FROM": self.active, "SWAP_TO": to, "SWAP_STATE": str(self.state)}
        for prefix, public, internal in ports:
            told[f"{prefix}PUBLIC"] = str(public)
            told[f"{prefix}TO_PORT"] = str(internal[to])
            told[f"{prefix}FROM_PORT"] = str(internal[self.active]) if self.active else ""
        code = self._called({**os.environ, **told})
        if code != 0:
            ended = f"did not end within {self.timeout_s:g} s" if code is None else f"ended with {code}"
            raise SwitchError(f"{shlex.join(self.argv)} {ended}: {self.said or 'no message'}")
        self.active = to
        return 0.0

    def end(self) -> None:
        """Nothing: what it has left running goes with the namespace."""

    def _called(self, environment: dict[str, str]) -> int | None:
        """The exit code of one call, None when its time was over; what it said is in `said`."""
        # A file, not a pipe: a proxy that the script has started holds it open.
        with tempfile.TemporaryFile(dir=self.state.parent) as said:
            process = self.host.popen(
                self.argv, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )
            try:
                code = process.wait(self.timeout_s)
            except subprocess.TimeoutExpired:
                code = None
                process.kill()
                process.wait()
            size = os.fstat(said.fileno()).st_size
            last = os.pread(said.fileno(), SHOWN_BYTES, max(0, size - SHOWN_BYTES))
        self.said = "\n".join(last.decode(errors="replace").splitlines()[-SHOWN_LINES:])
        return code


def switch_for(
    scenario: Scenario, topology: Topology, host: Namespace, folder: Path, *, product: Path | None = None
) -> Switch:
    """What the scenario asks for, ready on its host; `swapper` is that of the tree `product`, if one is named."""
    if scenario.swap_command:
        return CommandSwitch(host, scenario, folder)
    config = folder / "swapper.toml"
    config.write_text(specs.configuration(scenario, folder, topology), encoding="ascii")
    return SwapperSwitch(host, config, product=product)


def swapper_command(product: Path | None = None) -> list[str]:
    """The `swapper` command of this installation, or of the tree `product`."""
    if product:
        # -P: else the folder that the caller happens to be in comes before the tree.
        return ["env", f"PYTHONPATH={product}", sys.executable, "-P", "-m", "swapper"]
    beside = Path(sys.executable).with_name("swapper")
    if beside.exists():
        return [str(beside)]
    found = shutil.which("swapper")
    return [found] if found else [sys.executable, "-m", "swapper"]
