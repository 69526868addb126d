"""RTT of the paths a datagram can take, compared with the direct one: reads what the harness measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.pingpong import DIRECT, Route

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ROUTES", "Comparison", "compare"]

BOOTSTRAPS = 2000
ROUTES = (
    DIRECT,
    Route("stateless nftables", "stateless", "nftables"),
    Route("zones nftables", "zones", "nftables"),
    Route("zones iptables-nft", "zones", "iptables-nft"),
    Route("zones iptables-legacy", "zones", "iptables-legacy"),
    Route("classic iptables-nft", "classic", "iptables-nft"),
)


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
