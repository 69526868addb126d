"""Gathers what the gate judges: only what its limits name, the base beside the head in one job."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from bench.failures import FAILURES, why
from bench.gate.budget import Known
from bench.gate.evidence import Evidence, of_base
from bench.parts.paths import DATAPLANES, answering
from bench.parts.swaps import TECHNIQUES, measured
from harness.pingpong import DIRECT, DIRECT_AGAIN, Route, rtts_us

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from bench.gate.budget import Limit

    Say = Callable[[str], None]

__all__ = ["KNOWN", "Trial", "tried"]

ROUNDS: Final = 3  # each with hosts of its own: two of the same kind differ by a little
# What a change of the product can make worse: no proxy, and not the direct path.
SWAPS: Final = {technique.name: technique for technique in TECHNIQUES if technique.proxy is None}
PATHS: Final = {route.name: route for route in DATAPLANES if route.dataplane}
KNOWN: Final = Known({name: technique.scenario.expect for name, technique in SWAPS.items()}, PATHS)


@dataclass(frozen=True, slots=True)
class Trial:
    """The product of a tree, None for this installation, beside that of a base, if there is one."""

    product: Path | None = None
    base: Path | None = None
    seconds: float = 40.0  # of round trips in all
    seed: int = 1


def tried(limits: Sequence[Limit], trial: Trial, say: Say) -> Evidence:
    """Measure what the limits name. Needs root and the main thread."""
    swaps = _swaps({limit.swap for limit in limits if limit.swap}, trial, say)
    paths = {limit.path for limit in limits if limit.path}
    if not paths:
        return Evidence(swaps)
    return Evidence(swaps, *_round_trips(paths, trial, say))


def _swaps(names: set[str], trial: Trial, say: Say) -> dict[str, list[dict[str, Any]]]:
    """One swap of each technique, by the head and by the base in an order of chance."""
    chance = random.Random(trial.seed)  # noqa: S311 - an order that can be repeated, not a secret
    found = {}
    for number, name in enumerate(sorted(names), 1):
        say(f"[{number}/{len(names)}] {name}")
        turns = [(name, trial.product)]
        if trial.base:
            turns.append((of_base(name), trial.base))
        for label, product in chance.sample(turns, len(turns)):
            found[label] = [measured(SWAPS[name], product=product, timeline=False)]
    return found


def _round_trips(paths: set[str], trial: Trial, say: Say) -> tuple[list[dict[str, list[float]]], dict[str, str]]:
    """The turns of every path in each round, all on one core, and why a path is in none."""
    routes, absent = answering([DIRECT, DIRECT_AGAIN, *_routes(paths, trial)])
    say(f"{len(routes)} paths, {trial.seconds:.0f} s of round trips in {ROUNDS} rounds")
    rounds_us = []
    for number in range(ROUNDS):
        try:
            rounds_us.append(rtts_us(routes, seconds=trial.seconds / ROUNDS, seed=trial.seed + number, one_core=True))
        except FAILURES as error:
            absent |= dict.fromkeys(paths, f"round {number + 1}: {why(error)}")
    return rounds_us, absent


def _routes(paths: set[str], trial: Trial) -> list[Route]:
    """The paths by the product, and those by the base."""
    routes = [replace(PATHS[name], product=trial.product) for name in sorted(paths)]
    if trial.base:
        routes += [replace(PATHS[name], name=of_base(name), product=trial.base) for name in sorted(paths)]
    return routes
