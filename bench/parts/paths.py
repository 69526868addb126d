"""Round trips on the paths that a datagram or a connection can take, each compared with the direct one."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from bench.failures import FAILURES, why
from bench.proxies import started
from bench.step import ROUND, Step
from harness.histogram import Histogram
from harness.pingpong import DIRECT, DIRECT_AGAIN, Route, round_trips

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from bench.proxies import Proxy
    from bench.step import Plan

__all__ = [
    "DATAPLANES",
    "KINDS",
    "PART",
    "Comparison",
    "Kind",
    "Summary",
    "answering",
    "compare",
    "hops",
    "planes",
    "steps",
    "summary",
]

PART: Final = "rtt"
BOOTSTRAPS: Final = 2000
QUICK_S: Final = 45.0
ROUND_S: Final = 20.0  # at least: a shorter round would mostly set up hosts
SET_UP_S: Final = 2.0  # about, for the hosts and proxies of one step
LEAST_S: Final = 0.5
DATAPLANES: Final = (
    DIRECT,
    Route("stateless nftables", "stateless", "nftables"),
    Route("zones nftables", "zones", "nftables"),
    Route("zones iptables-nft", "zones", "iptables-nft"),
    Route("zones iptables-legacy", "zones", "iptables-legacy"),
    Route("classic iptables-nft", "classic", "iptables-nft"),
    DIRECT_AGAIN,
)


def planes(plan: Plan) -> list[Route]:
    """The direct path, the dataplanes that this host has, and the direct path again."""
    return [route for route in DATAPLANES if route.name not in plan.lacking]


def answering(routes: Iterable[Route]) -> tuple[list[Route], dict[str, str]]:
    """The routes that carry an exchange, and what the others said instead, by name. Needs root and the main thread."""
    up, absent = [], {}
    for route in routes:
        try:
            round_trips([route], seconds=0, seed=0)
            up.append(route)
        except FAILURES as error:
            absent[route.name] = why(error)
    return up, absent


def hops(proxies: Iterable[Proxy], protocol: Literal["udp", "tcp"]) -> tuple[Route, ...]:
    """The routes through those of the proxies that carry the protocol."""
    return tuple(
        Route(proxy.name, front=partial(started, proxy, protocol=protocol), protocol=protocol)
        for proxy in proxies
        if protocol in proxy.protocols
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """What is timed, and the share that it has of the time for all kinds."""

    name: str
    share: float
    protocol: Literal["udp", "tcp"] = "udp"
    fresh: bool = False
    one_core: bool = False

    def routes(self, plan: Plan) -> list[Route]:
        """The plan's dataplanes, and those of its proxies that this can be asked of."""
        kernel = [replace(route, protocol=self.protocol) for route in planes(plan)]
        if self.one_core:  # a proxy is a process with cores of its own choice: there is nothing fair to compare
            return kernel
        found = hops(plan.proxies, self.protocol)
        if self.fresh and self.protocol == "udp":
            # It listens anew after every new flow, and what comes meanwhile is refused.
            found = tuple(route for route in found if route.name != "socat")
        return [*kernel, *found]


KINDS: Final = (
    Kind("two cores", 0.35),
    Kind("one core", 0.2, one_core=True),
    Kind("first datagram", 0.12, fresh=True),
    Kind("tcp connect", 0.15, protocol="tcp", fresh=True),
    Kind("tcp request", 0.18, protocol="tcp"),
)


def steps(plan: Plan) -> list[Step]:
    """Every kind once a round, in a shuffled order; all of it takes about the plan's `rtt_s`, or 45 s if quick."""
    total_s = min(plan.rtt_s, QUICK_S) if plan.quick else plan.rtt_s
    rounds = max(1, min(plan.rounds, int(total_s / ROUND_S)))
    shuffle = random.Random(plan.seed)  # noqa: S311 - an order that can be repeated, not a secret
    found = []
    for number in range(1, rounds + 1):
        for kind in shuffle.sample(KINDS, len(KINDS)):
            about_s = kind.share * total_s / rounds
            seconds, seed = max(LEAST_S, about_s - SET_UP_S), shuffle.getrandbits(32)
            measure = partial(_measured, kind.routes(plan), kind, seconds=seconds, seed=seed)
            found.append(Step(PART, f"{kind.name}{ROUND}{number}", about_s, measure))
    return found


def _measured(routes: Sequence[Route], kind: Kind, *, seconds: float, seed: int) -> dict[str, Any]:
    found = round_trips(routes, seconds=seconds, seed=seed, fresh=kind.fresh, one_core=kind.one_core)
    return {name: trips.to_json() for name, trips in found.items()}


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


def compare(
    rtts_us: Mapping[str, Sequence[float]], *, seed: int, confidence: float = 0.95, against: str = DIRECT.name
) -> list[Comparison]:
    """Each route against the direct one, or another, turn by turn, with a bootstrap interval over the turns."""
    tail = 50 * (1 - confidence)
    direct = np.array(rtts_us[against])
    generator = np.random.default_rng(seed)
    results = []
    for name, values in rtts_us.items():
        mine = np.array(values)
        ratios = mine / direct
        low, high = np.percentile(_bootstrapped(ratios, generator), [tail, 100 - tail])
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


def _bootstrapped(values: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """The medians of resamples, without resampling: which value is in the middle of one follows from order statistics.

    The k-th smallest of n uniform draws is Beta(k, n + 1 - k); the next one is the smallest of the n - k above it.
    https://en.wikipedia.org/wiki/Order_statistic#Order_statistics_sampled_from_a_uniform_distribution
    """
    n, ordered = len(values), np.sort(values)
    middle = (n + 1) // 2
    below = generator.beta(middle, n + 1 - middle, BOOTSTRAPS)
    above = below if n % 2 else below + (1 - below) * generator.beta(1, n - middle, BOOTSTRAPS)
    medians: NDArray[np.float64] = (ordered[(n * below).astype(int)] + ordered[(n * above).astype(int)]) / 2
    return medians


@dataclass(frozen=True, slots=True)
class Summary(Comparison):
    """All rounds of one route: how it compares, and the tail of all its exchanges, to 1 %."""

    n: int  # exchanges
    p99_us: float
    p999_us: float
    max_us: float

    @property
    def per_s(self) -> float:
        """How many exchanges a second one client gets that asks for one after the other, at the median."""
        return 1e6 / self.p50_us


def summary(measured: Mapping[str, Mapping[str, Any]], *, seed: int) -> dict[str, list[Summary]]:
    """From the values of this part's steps: every route of every kind that was measured, over all rounds."""
    rounds: dict[str, list[Mapping[str, Any]]] = {kind.name: [] for kind in KINDS}
    for step, routes in measured.items():
        rounds[step.partition(ROUND)[0]].append(routes)
    return {
        kind: [_summed(name, found, seed=seed) for name in dict.fromkeys(name for one in found for name in one)]
        for kind, found in rounds.items()
        if found
    }


def _summed(name: str, rounds: Iterable[Mapping[str, Any]], *, seed: int) -> Summary:
    """One route over the rounds that it was part of, against the direct turns of the same rounds."""
    mine = [one for one in rounds if name in one]
    turns_us = {route: [us for one in mine for us in one[route]["turns_us"]] for route in (DIRECT.name, name)}
    found = Histogram.merged(Histogram.from_json(one[name]["histogram"]) for one in mine)
    return Summary(
        **asdict(compare(turns_us, seed=seed)[-1]),
        n=found.n,
        p99_us=found.quantile_us(0.99),
        p999_us=found.quantile_us(0.999),
        max_us=found.quantile_us(1),
    )
