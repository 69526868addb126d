"""The highest rate without loss of each path: one flow, one way, to a sink, by binary search.

In a veth pair the kernel's part of a path runs on the sender's own core, so for the kernel's paths it is the sender
that gives in, not the path: "at least". A proxy has a socket of its own to be read, and loses what it does not read.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bench.parts.carried import carried, routes
from bench.parts.search import Effort, Try, found, next_rate, proof
from bench.step import Step
from harness.pingpong import DIRECT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.step import Plan
    from harness.pingpong import Route

__all__ = ["PART", "Row", "measured", "steps", "summary"]

PART: Final = "capacity"
THOROUGH: Final = Effort(seconds=0.8, most_tries=12, confirmations=2, within=1.1)
QUICK: Final = Effort(seconds=0.3, most_tries=7, confirmations=1, within=1.3)
MOST: Final = 80_000  # datagrams of one try, however fast: a sender that cannot keep up has to come to its end as well
AROUND_S: Final = 1.0  # hosts and workers
SETTLE_S: Final = 0.2  # after a try


def steps(plan: Plan) -> list[Step]:
    """One step a path."""
    effort = QUICK if plan.quick else THOROUGH
    about_s = AROUND_S + (effort.seconds + SETTLE_S) * effort.most_tries * 2 / 3
    chosen = routes(plan)
    random.Random(plan.seed).shuffle(chosen)  # noqa: S311 - an order that can be repeated, not a secret
    return [Step(PART, route.name, about_s, partial(measured, route, effort)) for route in chosen]


def measured(route: Route, effort: Effort) -> dict[str, Any]:
    """What the search finds on a path. Raises ProxyError."""
    tries: list[Try] = []
    with carried(route) as path:
        while rate := next_rate(tries, effort):
            count = min(math.ceil(rate * effort.seconds), MOST)
            passage = path.load.send(rate_per_s=rate, count=count, wait="spin")
            tries.append(
                Try(rate, passage.sent, passage.lost, passage.late_slots, reached_per_s=round(passage.reached_per_s))
            )
    return found(tries)


@dataclass(frozen=True, slots=True)
class Row:
    """A path in a table: what it carried without loss in each of `n` tries."""

    name: str
    rate_per_s: int
    limited_by: str
    n: int
    lowest_per_s: int  # that was tried


def summary(values: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """A row for each path, direct first and then the highest rate."""
    rows = [_row(name, value) for name, value in values.items()]
    return sorted(rows, key=lambda row: (row.name != DIRECT.name, -row.rate_per_s))


def _row(name: str, value: Mapping[str, Any]) -> Row:
    tries = [Try(**one) for one in value["tries"]]
    lowest = min(one.rate_per_s for one in tries)
    return Row(name, value["rate_per_s"], value["limited_by"], len(proof(tries)), lowest)
