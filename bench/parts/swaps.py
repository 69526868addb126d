"""What each technique loses across a swap under load: dataplanes, the recipe, and proxies by ways of their own."""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bench.proxies import PROXIES, Proxy, started
from bench.step import ROUND, Step
from harness.matrix import PLANES, SECONDS, settled
from harness.scenario import Scenario
from harness.specs import INTERNAL, PUBLIC, TCP_INTERNAL, TCP_PUBLIC
from harness.switch import switch_for
from harness.timeline import Timeline
from harness.topology import FAMILIES, OUTSIDE_AND_HOST, SIDES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.proxies import Running
    from bench.step import Plan
    from harness.netns import Namespace
    from harness.switch import Switch

__all__ = ["PART", "TECHNIQUES", "ProxySwitch", "TcpProxySwitch", "Technique", "measured", "steps"]

PART: Final = "swaps"
# The same streams for all: from outside, over IPv4, since a proxy that listens elsewhere too would prove nothing more.
STREAMS: Final = Scenario(sides=("outside",), families=(4,), pattern="both", service_ms=20, seconds=2.5)
# Hosts, processes and rules, before the first slot and after the last.
AROUND_S: Final = 1.3


class Technique(NamedTuple):
    """A way to swap, the traffic that it is swapped under, and the proxy that carries it, if one does."""

    name: str
    scenario: Scenario
    proxy: Proxy | None = None


def _techniques() -> list[Technique]:
    classic = replace(STREAMS, dataplane="classic", engine="iptables-nft", pattern="long")
    zones = replace(STREAMS, dataplane="zones", engine="nftables")
    tcp = replace(zones, tcp=True)
    planes = [
        Technique(f"{dataplane} {engine}", replace(STREAMS, dataplane=dataplane, engine=engine))
        for dataplane, engine in PLANES
    ]
    # What a proxy is not asked to do: clients inside the host and on loopback too, over IPv6 as well.
    everywhere = [
        Technique(
            f"{one.name}, all sides",
            replace(one.scenario, sides=SIDES, families=FAMILIES, seconds=SECONDS[str(one.scenario.engine)]),
        )
        for one in planes
    ]
    return [
        Technique("classic, flush", replace(classic, expect="flush")),
        Technique("classic, no flush", replace(classic, flush="none", expect="pinned")),
        *planes,
        *everywhere,
        Technique("zones nftables, drain", replace(zones, udp="drain", drain_timeout_s=1, seconds=3, expect="drain")),
        *(Technique(f"{one.name}, {one.switches_by}", STREAMS, one) for one in PROXIES if "udp" in one.protocols),
        Technique("zones nftables, TCP", tcp),
        *(Technique(f"{one.name}, TCP, {one.switches_by}", tcp, one) for one in PROXIES if "tcp" in one.protocols),
    ]


TECHNIQUES: Final = _techniques()


def steps(plan: Plan) -> list[Step]:
    """Every technique in every round, in an order of the round's own; proxies as far as the plan has them.

    A quick plan leaves out what no proxy is compared with.
    """
    order = [one for one in TECHNIQUES if one.proxy is None or one.proxy in plan.proxies]
    if plan.quick:
        order = [one for one in order if one.scenario.sides == STREAMS.sides]
    shuffle = random.Random(plan.seed)  # noqa: S311 - an order that can be repeated, not a secret
    found = []
    for number in range(1, plan.rounds + 1):
        shuffle.shuffle(order)
        found += [
            Step(
                PART,
                f"{one.name}{ROUND}{number}",
                one.scenario.seconds + AROUND_S,
                partial(measured, one, timeline=number == 1),
            )
            for one in order
        ]
    return found


class ProxySwitch:
    """A proxy in front of the backends, switched by its own best way. What fails raises ProxyError."""

    in_kernel = False

    def __init__(
        self,
        proxy: Proxy,
        host: Namespace,
        folder: Path,
        *,
        protocol: str = "udp",
        public: int = PUBLIC,
        internal: dict[str, int] = INTERNAL,
    ) -> None:
        self.host, self.said = host, ""
        self._internal = internal
        self._stack = ExitStack()
        self._front = started(proxy, host, folder, protocol=protocol, public=public, backend=internal["blue"])
        self._running: Running | None = None

    def begin(self) -> None:
        """Start it, towards blue."""
        self._running = self._stack.enter_context(self._front)

    def swap(self, to: str) -> float:
        """Its own switch."""
        if self._running:
            self._running.switch(self._internal[to])
        return 0.0

    def end(self) -> None:
        """Stop it."""
        self._stack.close()


class TcpProxySwitch:
    """A proxy for the TCP port; the datagrams beside it go by zones, the same for every proxy."""

    in_kernel = False

    def __init__(self, proxy: Proxy, scenario: Scenario, host: Namespace, folder: Path) -> None:
        self.said = ""
        self._tcp = ProxySwitch(proxy, host, folder, protocol="tcp", public=TCP_PUBLIC, internal=TCP_INTERNAL)
        self._udp = switch_for(replace(scenario, tcp=False), OUTSIDE_AND_HOST, host, folder)

    def begin(self) -> None:
        """Both, towards blue."""
        self._tcp.begin()
        self._udp.begin()

    def swap(self, to: str) -> float:
        """Connections first."""
        self._tcp.swap(to)
        return self._udp.swap(to)

    def end(self) -> None:
        """Stop the proxy."""
        self._tcp.end()


def measured(
    technique: Technique,
    say: Callable[[str], None] = lambda _: None,
    *,
    product: Path | None = None,
    timeline: bool = True,
) -> dict[str, Any]:
    """One swap of a technique: the scenario result, its name, and the timeline that a picture needs.

    A dataplane is programmed by the `swapper` of the tree `product`, if one is named.
    Raises ProxyError. Needs root and the main thread.
    """
    name, proxy = technique.name, technique.proxy
    scenario = replace(technique.scenario, name=name)

    def switch(host: Namespace, folder: Path) -> Switch:
        if proxy is None:
            return switch_for(scenario, OUTSIDE_AND_HOST, host, folder, product=product)
        return TcpProxySwitch(proxy, scenario, host, folder) if scenario.tcp else ProxySwitch(proxy, host, folder)

    record = settled(scenario, say=say, switch=switch).record
    drawn = Timeline.of(record) if timeline else None
    return {
        "technique": name,
        "proxy": proxy.name if proxy else "",
        **record.to_json(),
        "timeline": drawn.to_json() if drawn else None,
    }
