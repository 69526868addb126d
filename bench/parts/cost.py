"""The CPU time that one datagram costs on each path, and the memory of a proxy in it.

One flow, one way, to a sink, at the same 10,000 a second on all paths: what the slowest proxy still carries, and enough
for differences of a tenth of a microsecond. Ten datagrams leave together, once a millisecond. That is kind to a proxy,
which then wakes up once for ten; alone, each would cost it several times as much, and the sender too, in whose cost
the difference would drown.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from bench.parts.carried import carried, routes
from bench.parts.usage import cpu_ns, kernel_ns, memory_mib
from bench.proxies import ProxyError
from bench.step import ROUND, Step
from harness.pingpong import DIRECT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.step import Plan
    from harness.pingpong import Route

__all__ = ["PART", "Row", "measured", "steps", "summary"]

PART: Final = "cost"
RATE_PER_S: Final = 10_000
SECONDS: Final = 2.0
ROUNDS: Final = 5  # at most: the medians of more differ no less
AROUND_S: Final = 1.0  # hosts and workers
ROUND_OF: Final = re.compile(rf"(.+){ROUND}(\d+)")


def steps(plan: Plan) -> list[Step]:
    """One step a path and round, the rounds interleaved, each in an order of its own."""
    shuffle = random.Random(plan.seed)  # noqa: S311 - an order that can be repeated, not a secret
    found: list[Step] = []
    for number in range(1, 1 + (1 if plan.quick else min(plan.rounds, ROUNDS))):
        order = routes(plan)
        shuffle.shuffle(order)
        found += [
            Step(PART, f"{route.name}{ROUND}{number}", SECONDS + AROUND_S, partial(measured, route)) for route in order
        ]
    return found


def measured(route: Route, *, seconds: float = SECONDS) -> dict[str, Any]:
    """What the load costs on a path, by datagram. Raises ProxyError."""
    with carried(route) as path:
        proxies = path.proxy.pids() if path.proxy else []
        ends = path.load.pids()
        before_ns = cpu_ns(proxies), cpu_ns(ends), kernel_ns()
        passage = path.load.send(rate_per_s=RATE_PER_S, count=int(RATE_PER_S * seconds), wait="sleep")
        proxy_ns, ends_ns, rest_ns = (
            after - before
            for after, before in zip((cpu_ns(proxies), cpu_ns(ends), kernel_ns()), before_ns, strict=True)
        )
        if path.proxy and passage.lost == passage.sent:
            raise ProxyError(f"{route.name} carried none of {passage.sent} datagrams: {path.proxy.last_lines()}")
        return {
            "datagrams": passage.sent,
            "lost": passage.lost,
            "rate_per_s": RATE_PER_S,
            "system_us": round((proxy_ns + ends_ns + rest_ns) / passage.sent / 1000, 3),
            "proxy_us": round(proxy_ns / passage.sent / 1000, 3) if proxies else None,
            "proxy_memory_mib": round(memory_mib(proxies), 1) if proxies else None,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """A path in a table: medians over `n` rounds, and over those in which direct was measured too for `adds_us`."""

    name: str
    n: int
    system_us: float
    adds_us: float | None
    proxy_us: float | None
    proxy_memory_mib: float | None


def summary(values: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """A row for each path, the cheapest first."""
    rounds: dict[str, dict[int, Mapping[str, Any]]] = {}
    for step, value in values.items():
        if match := ROUND_OF.fullmatch(step):
            rounds.setdefault(match[1], {})[int(match[2])] = value
    direct = {number: value["system_us"] for number, value in rounds.get(DIRECT.name, {}).items()}
    return sorted((_row(name, mine, direct) for name, mine in rounds.items()), key=lambda row: row.system_us)


def _row(name: str, rounds: Mapping[int, Mapping[str, Any]], direct_us: Mapping[int, float]) -> Row:
    def middle(key: str) -> float | None:
        return _median([value[key] for value in rounds.values() if value[key] is not None])

    adds = [value["system_us"] - direct_us[number] for number, value in rounds.items() if number in direct_us]
    system_us = median(value["system_us"] for value in rounds.values())
    return Row(name, len(rounds), system_us, _median(adds), middle("proxy_us"), middle("proxy_memory_mib"))


def _median(values: list[float]) -> float | None:
    return median(values) if values else None
