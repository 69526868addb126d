"""What each technique loses across a swap under load: dataplanes, the recipe, and proxies by ways of their own."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.proxies import PROXIES, Proxy, ProxyError, started
from harness.matrix import PLANES
from harness.scenario import Scenario, run
from harness.specs import INTERNAL, PUBLIC
from harness.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.proxies import Running
    from harness.netns import Namespace

__all__ = ["TECHNIQUES", "ProxySwitch", "Technique", "measured"]

# The same streams for all: from outside, over IPv4, since a proxy that listens elsewhere too would prove nothing more.
STREAMS = Scenario(sides=("outside",), families=(4,), pattern="both", service_ms=20, seconds=3)
Technique = tuple[str, Scenario, Proxy | None]


def _techniques() -> list[Technique]:
    classic = replace(STREAMS, dataplane="classic", engine="iptables-nft", pattern="long")
    planes = [
        (f"{dataplane} {engine}", replace(STREAMS, dataplane=dataplane, engine=engine), None)
        for dataplane, engine in PLANES
    ]
    drain = replace(STREAMS, engine="nftables", udp="drain", expect="drain", seconds=5)
    return [
        ("classic, flush", replace(classic, expect="flush"), None),
        ("classic, no flush", replace(classic, flush="none", expect="pinned"), None),
        *planes,
        ("zones nftables, drain", drain, None),
        *((f"{proxy.name}, {proxy.switches_by}", STREAMS, proxy) for proxy in PROXIES if "udp" in proxy.protocols),
    ]


TECHNIQUES: list[Technique] = _techniques()


class ProxySwitch:
    """A proxy in front of the backends, switched by its own best way."""

    in_kernel = False

    def __init__(self, proxy: Proxy, host: Namespace, folder: Path) -> None:
        self.proxy, self.host, self.folder = proxy, host, folder
        self.said = ""
        self._stack = ExitStack()
        self._running: Running | None = None

    def begin(self) -> None:
        """Start it, towards blue."""
        try:
            front = started(self.proxy, self.host, self.folder, public=PUBLIC, backend=INTERNAL["blue"])
            self._running = self._stack.enter_context(front)
        except ProxyError as error:
            raise subprocess.CalledProcessError(1, [self.proxy.name], stderr=str(error)) from error

    def swap(self, to: str) -> float:
        """Its own switch."""
        try:
            if self._running:
                self._running.switch(INTERNAL[to])
        except ProxyError as error:
            raise subprocess.CalledProcessError(1, [self.proxy.name], stderr=str(error)) from error
        return 0.0

    def end(self) -> None:
        """Stop it."""
        self._stack.close()


def measured(technique: Technique, say: Callable[[str], None]) -> dict[str, Any]:
    """One swap of a technique: the scenario result, its name, and the timeline that a picture needs."""
    name, scenario, proxy = technique
    scenario = replace(scenario, name=name)
    record = run(scenario, say=say, switch=partial(ProxySwitch, proxy) if proxy else None)
    drawn = Timeline.of(record)
    return {
        "technique": name,
        "proxy": proxy.name if proxy else "",
        **record.to_json(),
        "timeline": drawn.to_json() if drawn else None,
    }
