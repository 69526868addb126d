"""The paths that a load is put on, and what carries each: the kernel, or a proxy with processes of its own."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from bench.parts.paths import planes
from bench.proxies import ProxyError, Running, started
from harness.loads import NothingArrivesError, loading
from harness.pingpong import DIRECT, Route, alive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.step import Plan
    from harness.loads import Load
    from harness.netns import Namespace
    from harness.pingpong import Front

__all__ = ["Carried", "carried", "routes"]

QUICK = (DIRECT.name, "stateless nftables", "zones nftables")


@dataclass(frozen=True, slots=True)
class Carried:
    """A path that carries a load, and the proxy in it if there is one."""

    load: Load
    proxy: Running | None


def routes(plan: Plan) -> list[Route]:
    """The paths of a plan: every dataplane, or the main ones if it is quick, and the proxies for UDP."""
    kernel = [route for route in planes(plan) if route.name in QUICK or not plan.quick]
    proxies = [one for one in plan.proxies if "udp" in one.protocols]
    return [*kernel, *(Route(proxy.name, front=partial(started, proxy)) for proxy in proxies)]


@contextmanager
def carried(route: Route) -> Iterator[Carried]:
    """The path, alive, with a sender and a sink. Raises ProxyError if its proxy carries nothing, or ends meanwhile."""
    up: list[Running] = []
    with alive(replace(route, front=_noted(route.front, up)) if route.front else route) as ends:
        proxy = up[0] if up else None
        try:
            with loading(*ends) as load:
                yield Carried(load, proxy)
        except NothingArrivesError as error:
            if proxy is None:
                raise RuntimeError(f"{route.name}: {error}") from error
            raise ProxyError(f"{route.name} carries nothing: {proxy.last_lines()}") from error
        except OSError as error:
            if proxy is None:
                raise
            raise ProxyError(f"{route.name}: {error}: {proxy.last_lines()}") from error  # a worker that is gone, say
        if proxy is not None and proxy.process.poll() is not None:
            raise proxy.ended()


def _noted(front: Front, up: list[Running]) -> Front:
    """The same front, which notes the proxy that it has put up."""

    @contextmanager
    def noted(host: Namespace, folder: Path, *, public: int, backend: int) -> Iterator[None]:
        with front(host, folder, public=public, backend=backend) as running:
            if isinstance(running, Running):
                up.append(running)
            yield

    return noted
