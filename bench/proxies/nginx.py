"""nginx, module stream: UDP and TCP."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

from bench.proxies.running import ProxyError, Running, filled, found, until

if TYPE_CHECKING:
    from harness.netns import Namespace

__all__ = ["Nginx"]

# A datagram of a known client has to reach the worker that has its session: `reuseport`, says the directive's page.
LISTENS = {"udp": " udp reuseport", "tcp": ""}


class Nginx(Running):
    """Switched by a new configuration and SIGHUP: new workers take over, old ones finish their sessions."""

    def __init__(self, host: Namespace, folder: Path, protocol: str, public: int, backend: int) -> None:
        self.protocol, self.public = protocol, public
        binary = Path(found("nginx", "nginx"))
        self.modules = _modules(binary)
        self.config = folder / "nginx.conf"
        self._configure(folder, backend)
        argv = [str(binary), "-c", str(self.config), "-p", str(folder), "-e", "stderr"]
        super().__init__("nginx", host, folder, argv)
        self.await_port(protocol, public)

    def switch(self, port: int) -> None:
        self._configure(self.folder, port)
        before = set(self.pids())
        self.process.send_signal(signal.SIGHUP)
        if not until(lambda: not set(self.pids()) <= before):
            raise ProxyError(f"nginx did not reload: {self.last_lines()}")

    def _configure(self, folder: Path, backend: int) -> None:
        text = filled(
            "nginx.conf",
            FOLDER=folder,
            MODULES=self.modules,
            PUBLIC=self.public,
            LISTENS=LISTENS[self.protocol],
            BACKEND=backend,
        )
        self.config.write_text(text, encoding="utf-8")


def _modules(binary: Path) -> Path:
    for folder in (binary.parents[1] / "lib/nginx/modules", Path("/usr/lib/nginx/modules")):
        if (folder / "ngx_stream_module.so").exists():
            return folder
    raise ProxyError("nginx: its stream module is not on this host; bring it with: apt-get install libnginx-mod-stream")
