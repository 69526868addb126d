"""RTT of the paths a datagram can take, compared with the direct one: reads what the harness measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bench.proxies import PROXIES, ProxyError, started
from harness.pingpong import DIRECT, Route, alive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["DATAPLANES", "HOPS", "Comparison", "compare", "usable"]

BOOTSTRAPS = 2000
DATAPLANES = (
    DIRECT,
    Route("stateless nftables", "stateless", "nftables"),
    Route("zones nftables", "zones", "nftables"),
    Route("zones iptables-nft", "zones", "iptables-nft"),
    Route("zones iptables-legacy", "zones", "iptables-legacy"),
    Route("classic iptables-nft", "classic", "iptables-nft"),
)
HOPS = tuple(Route(proxy.name, front=partial(started, proxy)) for proxy in PROXIES if "udp" in proxy.protocols)


def usable(routes: Sequence[Route]) -> tuple[list[Route], dict[str, str]]:
    """The routes that come up on this host, and why the others do not, by name."""
    up, missing = [], {}
    for route in routes:
        try:
            with alive(route):
                up.append(route)
        except ProxyError as error:
            missing[route.name] = str(error)
    return up, missing


@dataclass(frozen=True, slots=True)
class Comparison:
    """A route against direct: medians over the turns, and an interval of the median of the paired ratios."""

    name: str
    turns: int
    p50_us: float
    adds_us: float
    ratio: float
    low: float
    high: float


def compare(rtts_us: Mapping[str, Sequence[float]], *, seed: int, confidence: float = 0.95) -> list[Comparison]:
    """Each route against the direct one, turn by turn, with a bootstrap interval over the turns."""
    tail = 50 * (1 - confidence)
    direct = np.array(rtts_us[DIRECT.name])
    generator = np.random.default_rng(seed)
    results = []
    for name, values in rtts_us.items():
        mine = np.array(values)
        ratios = mine / direct
        medians = [np.median(generator.choice(ratios, len(ratios))) for _ in range(BOOTSTRAPS)]
        low, high = np.percentile(medians, [tail, 100 - tail])
        results.append(
            Comparison(
                name,
                turns=len(mine),
                p50_us=float(np.median(mine)),
                adds_us=float(np.median(mine - direct)),
                ratio=float(np.median(ratios)),
                low=float(low),
                high=float(high),
            )
        )
    return results
