"""The summary that a run prints: what each technique lost, and what each path costs. Pure."""

from __future__ import annotations

from operator import itemgetter
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from bench.noise import COMPARED
from bench.parts.paths import summary as round_trips
from bench.report.summaries import faulty
from harness.ledger import LOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.parts.paths import Summary

__all__ = ["lines"]

BESIDE: Final = ("one core", "first datagram", "tcp connect", "tcp request")  # kinds that get a ratio alone


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """A table for each of these parts that was measured."""
    measured = document["measured"]
    if swaps := measured.get("swaps"):
        yield from _swaps(swaps)
    if rtt := measured.get("rtt"):
        yield from _paths(round_trips(rtt, seed=document["options"]["seed"]))


def _swaps(swaps: Mapping[str, Any]) -> Iterator[str]:
    """By technique, over all rounds, in the order of their names; a round that proves nothing is named instead."""
    rounds: dict[str, list[Any]] = {}
    for one in sorted(swaps.values(), key=itemgetter("technique")):
        rounds.setdefault(one["technique"], []).append(one)
    yield f"{'across a swap':<36}{'sent':>9}{'lost':>9}{'blackout, ms':>14}{'TCP broken':>14}"
    for technique, runs in rounds.items():
        proved = [one for one in runs if one["verdict"] != "inconclusive"]
        if proved:
            yield _swap(technique, proved)
        for why in sorted({one["why"] for one in runs if one["verdict"] == "inconclusive"}):
            yield f"{technique:<36}a round proves nothing: {why}"


def _swap(technique: str, runs: list[Any]) -> str:
    sent = sum(one["ledger"]["sent"] for one in runs)
    lost = sum(one["ledger"][fate] for one in runs for fate in LOST)
    blackout_ms = median(one["blackout_ms"] for one in runs)
    opened = sum(one["tcp"].get("opened", 0) for one in runs)
    broken = sum(faulty(one["tcp"]) for one in runs)
    tcp = f"{broken:,} of {opened:,}" if opened else ""
    return f"{technique:<36}{sent:>9,}{lost:>9,}{blackout_ms:>14.1f}{tcp:>14}"


def _paths(kinds: Mapping[str, list[Summary]]) -> Iterator[str]:
    """By route; each figure is a ratio to the direct path of the same kind but for the two times."""
    by_name = {kind: {one.name: one for one in found} for kind, found in kinds.items()}
    both = by_name.get(COMPARED, {})
    yield ""
    yield f"{'round trip':<24}{'p50, us':>9}{'p99, us':>9}{'/ direct':>10}   {'95 %':<14}" + "".join(
        f"{kind:>16}" for kind in BESIDE
    )
    for name in dict.fromkeys(name for found in by_name.values() for name in found):
        ratios = [by_name.get(kind, {}).get(name) for kind in BESIDE]
        beside = "".join(f"{one.ratio:>16.3f}" if one else f"{'-':>16}" for one in ratios)
        yield f"{name:<24}{_path(both.get(name))}{beside}"


def _path(one: Summary | None) -> str:
    if one is None:
        return f"{'-':>9}{'-':>9}{'-':>10}   {'':<14}"
    return f"{one.p50_us:>9.1f}{one.p99_us:>9.1f}{one.ratio:>10.3f}   {f'{one.low:.3f} - {one.high:.3f}':<14}"
