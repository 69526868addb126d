"""HAProxy: TCP alone, it has no UDP proxy."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from bench.proxies.running import ProxyError, Running, filled, found

if TYPE_CHECKING:
    from pathlib import Path

    from harness.netns import Namespace

__all__ = ["HAProxy"]


class HAProxy(Running):
    """Switched by its runtime interface: new connections go to the new address, open ones stay."""

    def __init__(self, host: Namespace, folder: Path, protocol: str, public: int, backend: int) -> None:
        config = folder / "haproxy.cfg"
        config.write_text(filled("haproxy.cfg", FOLDER=folder, PUBLIC=public, BACKEND=backend), encoding="utf-8")
        self.socket = folder / "haproxy.sock"
        super().__init__("haproxy", host, folder, [found("haproxy", "haproxy"), "-db", "-f", str(config)])
        self.await_port(protocol, public)

    def switch(self, port: int) -> None:
        said = self._ask(f"set server service/backend addr 127.0.0.1 port {port}")
        if "changed" not in said and "no need" not in said:
            raise ProxyError(f"haproxy did not switch: {said.strip()}")

    def _ask(self, command: str) -> str:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as runtime:
                runtime.connect(str(self.socket))
                runtime.sendall(f"{command}\n".encode())
                return runtime.recv(4096).decode(errors="replace")
        except OSError as error:
            raise ProxyError(f"haproxy's runtime interface: {error.strerror}: {self.last_lines()}") from error
