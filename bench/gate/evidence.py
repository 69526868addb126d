"""What a verdict of the gate rests on, by the names that limits use: measured just now, or kept by an earlier run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench import results
from bench.gate.budget import BASE
from bench.step import ROUND
from harness.ledger import FATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Evidence", "of_base", "stored"]

# Nothing but what the path costs, so the ratio is of the same size on every machine; what it takes to wake another core
# is not, and would hide a slower path on one machine and show one that is not there on the next.
JUDGED: Final = "one core"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Scenario results by technique, and the turns of every route by round; what is the base's has a name of its own.

    `absent` says of a technique or route why it, or a round of it, was not measured; `noise` why the machine gave no
    verdict on latency, where whoever measured knew.
    """

    swaps: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    rounds_us: Sequence[Mapping[str, Sequence[float]]] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    noise: str = ""

    def turns_us(self, *routes: str) -> dict[str, list[float]]:
        """The turns of these routes, from the rounds that have all of them; value i of each is from the same moment."""
        whole = [found for found in self.rounds_us if found.keys() >= set(routes)]
        return {route: [turn for found in whole for turn in found[route]] for route in routes}


def of_base(name: str) -> str:
    """What the base's technique or route of that name is called."""
    return f"{name}, {BASE}"


def stored(path: Path) -> Evidence:
    """What a run of the bench has kept. Raises ResultsError for a file that cannot be trusted."""
    document = results.read(path)
    try:
        return _of(document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
        raise results.ResultsError(f"{path}: is not a result of swapper-bench run: {why}") from error


def _of(document: Mapping[str, Any]) -> Evidence:
    measured, failed = document["measured"], document["failed"]
    swaps: dict[str, list[Mapping[str, Any]]] = {}
    for run in measured.get("swaps", {}).values():
        swaps.setdefault(run["technique"], []).append(_checked(run))
    rounds_us = [
        _paired({route: found["turns_us"] for route, found in step.items()})
        for name, step in measured.get("rtt", {}).items()
        if name.startswith(JUDGED)
    ]
    absent = {step.partition("/")[2].rpartition(ROUND)[0]: why for step, why in failed.items()}
    noise = document["noise"]["why"] if document["noise"]["busy"] else ""
    return Evidence(swaps, rounds_us, {**document["missing"], **absent}, noise)


def _checked(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a swap is judged by; a ledger that a verdict rests on adds up."""
    verdict, why, ledger = run["verdict"], run["why"], run["ledger"]
    if verdict not in {"pass", "fail", "inconclusive"}:
        raise ValueError(f"{verdict!r} is no verdict")
    if verdict != "inconclusive" and not 0 < ledger["sent"] == sum(ledger[fate] for fate in FATES) - ledger["not_sent"]:
        raise ValueError(f"the fates of {run['technique']} do not add up to what was sent")
    return {"verdict": verdict, "why": why, "ledger": ledger}


def _paired(turns_us: Mapping[str, Sequence[float]]) -> Mapping[str, Sequence[float]]:
    """The turns of a round, as many of each route."""
    if len({len(turns) for turns in turns_us.values()}) > 1:
        raise ValueError("the routes of a round have turns of their own")
    return turns_us
