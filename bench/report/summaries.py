"""What the records of a run come to: pure sums and medians over rounds, of what was measured and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from bench.parts import capacity, cost, paths
from bench.parts.series import Series, series
from bench.step import ROUND
from harness.histogram import Histogram
from harness.ledger import LOST
from harness.pingpong import DIRECT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.parts.paths import Summary

__all__ = ["Found", "Hop", "Swaps", "faulty"]

Measured = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """Every part of a run, summed up; empty where a part was not measured."""

    swaps: list[Swaps]
    hops: dict[str, list[Hop]]
    costs: list[cost.Row]
    costs_at_per_s: float
    capacities: list[capacity.Row]
    sweeps: list[Series]

    @classmethod
    def of(cls, document: dict[str, Any]) -> Found:
        """What a document of results comes to; every list is in the order in which it is best read."""
        measured = document["measured"]
        costs = measured.get("cost", {})
        return cls(
            _swaps(measured.get("swaps", {})),
            _hops(measured.get("rtt", {}), seed=document["options"]["seed"]),
            sorted(cost.summary(costs), key=lambda row: _rank(row.name, row.system_us)),
            next((one["rate_per_s"] for one in costs.values()), 0),
            capacity.summary(measured.get("capacity", {})),
            series(measured),
        )


@dataclass(frozen=True, slots=True)
class Swaps:
    """All rounds of one technique; one that proves nothing is named and not counted."""

    technique: str
    scenario: Measured
    sent: int
    fates: Mapping[str, int]  # of what was lost
    lost_each: tuple[int, ...]  # a round
    blackouts_ms: tuple[float, ...]
    tcp: Counter[str]  # what became of connections
    faulty: int  # connections
    unproved: tuple[str, ...]  # why a round proves nothing
    timeline: dict[str, Any] | None

    @property
    def is_tcp(self) -> bool:
        """Whether it is connections that the technique carries; the datagrams beside them then go another way."""
        return bool(self.scenario["tcp"])

    @property
    def lost(self) -> int:
        """In all rounds together."""
        return sum(self.lost_each)

    @property
    def lost_a_swap(self) -> float:
        """The mean over the rounds."""
        return mean(self.lost_each)


def faulty(tcp: Mapping[str, int]) -> int:
    """How many connections of a run did not end as they had to; one that broke before any answer counts once."""
    return max(tcp.get("broken", 0), tcp.get("unanswered", 0)) + tcp.get("moved", 0) + tcp.get("on_old_set", 0)


def _swaps(measured: Measured) -> list[Swaps]:
    """Those for datagrams first; of each kind those that lose the least first, those that prove nothing last."""
    found = [_all_rounds(name, runs) for name, runs in _by_name(measured).items()]
    return sorted(found, key=_from_good_to_bad)


def _from_good_to_bad(one: Swaps) -> tuple[bool, bool, float, str]:
    return one.is_tcp, not one.lost_each, one.lost_a_swap if one.lost_each else 0, one.technique


def _all_rounds(technique: str, runs: list[Any]) -> Swaps:
    counted = [run for run in runs if run["ledger"].get("sent") and run["verdict"] != "inconclusive"]
    fates, tcp = Counter[str](), Counter[str]()
    for run in counted:
        fates.update({fate: run["ledger"][fate] for fate in LOST if run["ledger"][fate]})
        tcp.update(run["tcp"])
    return Swaps(
        technique,
        scenario=runs[0]["scenario"],
        sent=sum(run["ledger"]["sent"] for run in counted),
        fates=fates,
        lost_each=tuple(sum(run["ledger"][fate] for fate in LOST) for run in counted),
        blackouts_ms=tuple(run["blackout_ms"] for run in counted),
        tcp=tcp,
        faulty=sum(faulty(run["tcp"]) for run in counted),
        unproved=tuple(run["why"] for run in runs if run not in counted),
        timeline=next((run["timeline"] for run in runs if run.get("timeline")), None),
    )


@dataclass(frozen=True, slots=True)
class Hop:
    """One route's times of one kind: how they compare with the direct route's, and how they spread."""

    summary: Summary
    times: Histogram

    @property
    def name(self) -> str:
        """The route."""
        return self.summary.name


def _hops(measured: Measured, *, seed: int) -> dict[str, list[Hop]]:
    """By kind, the direct route first, then by what they cost."""
    rounds = _by_name(measured)
    return {
        kind: sorted(
            (Hop(one, _spread(one.name, rounds[kind])) for one in found),
            key=lambda hop: _rank(hop.name, hop.summary.ratio),
        )
        for kind, found in paths.summary(measured, seed=seed).items()
    }


def _spread(route: str, rounds: list[Any]) -> Histogram:
    return Histogram.merged(Histogram.from_json(one[route]["histogram"]) for one in rounds if route in one)


def _by_name(measured: Measured) -> dict[str, list[Any]]:
    """The values of all rounds of a step, by its name without the round."""
    found: dict[str, list[Any]] = {}
    for step, value in measured.items():
        found.setdefault(step.rpartition(ROUND)[0], []).append(value)
    return found


def _rank(path: str, value: float) -> tuple[bool, float]:
    """What all others are compared with comes first."""
    return path != DIRECT.name, value
