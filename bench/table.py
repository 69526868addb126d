"""The summary that a run prints: what each technique lost, and what each path costs. Pure."""

from __future__ import annotations

from operator import itemgetter
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from bench.report import LOST

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["summary"]

BROKEN: Final = ("broken", "moved", "on_old_set")


def summary(document: dict[str, Any]) -> str:
    """The tables as text; only what was measured is in them."""
    swaps = document["measured"].get("swaps", {})
    return "\n".join(_swaps(swaps)) if swaps else "nothing to show"


def _swaps(swaps: dict[str, Any]) -> Iterator[str]:
    """By technique, over all rounds, in the order of their names; a round that proves nothing is named instead."""
    rounds: dict[str, list[Any]] = {}
    for one in sorted(swaps.values(), key=itemgetter("technique")):
        rounds.setdefault(one["technique"], []).append(one)
    yield f"{'across a swap':<36}{'sent':>9}{'lost':>9}{'blackout, ms':>14}{'TCP broken':>12}"
    for technique, runs in rounds.items():
        proved = [one for one in runs if one["verdict"] != "inconclusive"]
        if proved:
            yield _row(technique, proved)
        for why in sorted({one["why"] for one in runs if one["verdict"] == "inconclusive"}):
            yield f"{technique:<36}a round proves nothing: {why}"


def _row(technique: str, runs: list[Any]) -> str:
    sent = sum(one["ledger"]["sent"] for one in runs)
    lost = sum(one["ledger"][fate] for one in runs for fate in LOST)
    blackout_ms = median(one["blackout_ms"] for one in runs)
    opened = sum(one["tcp"].get("opened", 0) for one in runs)
    broken = sum(one["tcp"].get(fault, 0) for one in runs for fault in BROKEN)
    tcp = f"{broken} of {opened}" if opened else ""
    return f"{technique:<36}{sent:>9,}{lost:>9,}{blackout_ms:>14.1f}{tcp:>12}"
