"""Proxies that cannot be told of another backend: their switch is to end and to start again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.proxies.running import Running, found

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.netns import Namespace

__all__ = ["DockerProxy", "Socat"]


class _Restarted(Running):
    """Switched by a restart with the arguments for the other backend port."""

    def __init__(
        self,
        name: str,
        host: Namespace,
        folder: Path,
        listens: tuple[str, int],
        argv: Callable[[int], list[str]],
        backend: int,
    ) -> None:
        self._listens, self._argv = listens, argv
        super().__init__(name, host, folder, argv(backend))
        self.await_port(*listens)

    def switch(self, port: int) -> None:
        self.end()
        super().__init__(self.name, self.host, self.folder, self._argv(port))
        self.await_port(*self._listens)


class DockerProxy(_Restarted):
    """What Docker starts for every published port; it reports its start on descriptor 3."""

    def __init__(self, host: Namespace, folder: Path, protocol: str, public: int, backend: int) -> None:
        binary = found("docker-proxy", "docker.io")

        def argv(port: int) -> list[str]:
            here = ["-host-ip", "0.0.0.0", "-host-port", str(public)]  # noqa: S104 - as Docker calls it
            there = ["-container-ip", "127.0.0.1", "-container-port", str(port)]
            return ["sh", "-c", 'exec "$@" 3>&1', "sh", binary, "-proto", protocol, *here, *there]

        super().__init__("docker-proxy", host, folder, (protocol, public), argv, backend)


class Socat(_Restarted):
    """One process for each flow or connection, which ends 30 s after the last datagram."""

    def __init__(self, host: Namespace, folder: Path, protocol: str, public: int, backend: int) -> None:
        binary, kind = found("socat", "socat"), protocol.upper()

        def argv(port: int) -> list[str]:
            return [binary, "-T", "30", f"{kind}4-LISTEN:{public},fork,reuseaddr", f"{kind}4:127.0.0.1:{port}"]

        super().__init__("socat", host, folder, (protocol, public), argv, backend)
