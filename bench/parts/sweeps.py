"""How a path's cost and a swap's loss grow: with live flows, mapped ports, payload, service time and rate.

Each step is one path at one value of what is swept, measured against the direct path beside it, or across one swap.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bench.failures import FAILURES, why
from bench.parts.paths import compare, hops, planes
from bench.step import Step
from harness.commits import commits_ms
from harness.expect import owed
from harness.pingpong import DIRECT, round_trips
from harness.scenario import Scenario, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bench.step import Plan
    from harness.pingpong import Route

__all__ = ["PART", "loss_point", "path_point", "steps"]

PART: Final = "sweeps"
UNITS: Final = {
    "flows": "live flows",
    "ports": "mapped ports",
    "payload": "bytes",
    "service time": "ms",
    "rate": "datagrams/s",
}
FLOWS: Final = (1, 1_000, 50_000, 200_000)
HOP_FLOWS: Final = (1, 1_000)  # socat has a process a flow
PORTS: Final = (1, 100, 1_000, 10_000)
PAYLOADS: Final = (64, 512, 1_400, 8_192)
SERVICE_MS: Final = (0, 5, 20, 50)
RATES_PER_S: Final = (500, 2_000, 10_000)
TURNS_S: Final = 1.5  # of round trips, direct and path together
STREAM: Final = Scenario(sides=("outside",), families=(4,), service_ms=20, seconds=2.5, engine="nftables")
SWAPPED: Final = {
    "classic, flush": replace(STREAM, dataplane="classic", engine="iptables-nft", expect="flush"),
    "zones nftables": STREAM,
    "stateless nftables": replace(STREAM, dataplane="stateless"),
}
SCENARIO_S: Final = 4.0  # about, with all that is around its streams

Point = dict[str, Any]


def steps(plan: Plan) -> list[Step]:
    """Every point of every sweep, none in a quick plan; in an order of the seed's, or a drift would pass for growth."""
    if plan.quick:
        return []
    made = [*_flows(plan), *_ports(plan), *_payloads(plan), *_losses()]
    random.Random(plan.seed).shuffle(made)  # noqa: S311 - an order that can be repeated, not a secret
    return made


def path_point(route: Route, *, seed: int, fresh: bool = False) -> Point:
    """The route's round trips against direct ones of the same payload; with `fresh`, those of new flows."""
    direct = replace(DIRECT, payload=route.payload)
    trips = round_trips((direct, route), seconds=TURNS_S, seed=seed, fresh=fresh)
    (found,) = (one for one in compare({n: t.turns_us for n, t in trips.items()}, seed=seed) if one.name == route.name)
    return {"ratio": found.ratio, "low": found.low, "high": found.high, "n": found.turns}


def loss_point(scenario: Scenario) -> Point:
    """What one swap loses, and what it has to by the model: rate x service time for a flush, nothing otherwise.

    A run that proves nothing is played once more. Raises RuntimeError where there is no ledger even then.
    """
    record = run(scenario)
    if record.verdict == "inconclusive":
        record = run(scenario)
    if record.ledger is None:
        raise RuntimeError(record.why)
    return {
        "lost": record.ledger.lost,
        "sent": record.ledger.to_json()["sent"],
        "model": owed(scenario) if scenario.expect == "flush" else 0,
        "verdict": record.verdict,
        "why": record.why,
    }


def _flows(plan: Plan) -> Iterator[Step]:
    names = ("stateless nftables", "zones nftables", "zones iptables-nft", "classic iptables-nft")
    for route in _named(planes(plan), names):
        for x in FLOWS:
            # 100,000 flows take most of a second to open, and half of one to be counted by each `swapper swap`.
            about_s = TURNS_S + 1.8 + x / 100_000 * (5.5 if route.is_tracked else 2.5)
            yield _step("flows", x, route.name, about_s, partial(_swapped, replace(route, flows=x), plan))
    for route in hops(plan.proxies, "udp"):
        for x in HOP_FLOWS:
            yield _step("flows", x, route.name, TURNS_S + 1, partial(_asked, replace(route, flows=x), plan))


def _ports(plan: Plan) -> Iterator[Step]:
    for route in _named(planes(plan), ("stateless nftables", "zones nftables", "zones iptables-nft")):
        for x in PORTS:
            apply_s = x / 1_000 * (1.6 if route.engine == "iptables-nft" else 0.4)
            mapped = replace(route, ports=x)
            yield _step("ports", x, route.name, TURNS_S + 1.8 + 2.8 * apply_s, partial(_swapped, mapped, plan))
            yield _step("ports", x, route.name, TURNS_S + apply_s, partial(_asked_anew, mapped, plan), ", new flows")


def _payloads(plan: Plan) -> Iterator[Step]:
    routes = (*planes(plan), *hops(plan.proxies, "udp"))
    for route in _named(routes, ("stateless nftables", "zones nftables", "nginx", "envoy")):
        for x in PAYLOADS:
            yield _step("payload", x, route.name, TURNS_S + 0.6, partial(_asked, replace(route, payload=x), plan))


def _losses() -> Iterator[Step]:
    for path, scenario in SWAPPED.items():
        for x in SERVICE_MS:
            measure = partial(loss_point, replace(scenario, service_ms=x))
            yield _step("service time", x, path, SCENARIO_S, measure)
        for x in RATES_PER_S:
            yield _step("rate", x, path, SCENARIO_S, partial(loss_point, replace(scenario, rate_per_s=x)))


def _asked(route: Route, plan: Plan) -> Point:
    return path_point(route, seed=plan.seed)


def _asked_anew(route: Route, plan: Plan) -> Point:
    return {"first": path_point(route, seed=plan.seed, fresh=True)}


def _swapped(route: Route, plan: Plan) -> Point:
    return {**_asked(route, plan), "commit_ms": commits_ms(route)}


def _named(routes: Iterable[Route], names: Iterable[str]) -> list[Route]:
    wanted = set(names)
    return [route for route in routes if route.name in wanted]


def _step(kind: str, x: float, path: str, about_s: float, measure: Callable[[], Point], what: str = "") -> Step:
    return Step(PART, f"{kind} {x:,}, {path}{what}", about_s, partial(_value, kind, x, path, measure))


def _value(kind: str, x: float, path: str, measure: Callable[[], Point]) -> dict[str, Any]:
    """One point as the results keep it; a path that cannot go so far is a finding, and says why."""
    try:
        point = measure()
    except FAILURES as error:
        point = {"failed": why(error)}
    return {"kind": kind, "unit": UNITS[kind], "points": [{"path": path, "x": x, **point}]}
