"""The gate: what was measured against a budget. Pure: values in, verdicts out.

A drop is an integer against a model. Latency is a paired ratio with its interval, and never a time: the whole interval
has to lie on one side of the limit, or nothing is proved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from bench.gate.budget import BASE
from bench.gate.evidence import of_base
from bench.parts.paths import compare
from harness.ledger import LOST
from harness.pingpong import DIRECT, DIRECT_AGAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.gate.budget import Limit
    from bench.gate.evidence import Evidence
    from bench.parts.paths import Comparison

    Run = Mapping[str, Any]  # a scenario result

__all__ = ["Finding", "Verdict", "confirmed", "judged", "verdict"]

Verdict = Literal["pass", "fail", "inconclusive"]

SEED: Final = 1  # of the bootstrap: the same evidence gives the same interval
ALIKE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Finding:
    """What one limit showed, in words."""

    limit: Limit
    verdict: Verdict
    found: str
    carries: bool = True  # the path, of the head: what a base lacks is no fault of a change

    @property
    def is_unproved_latency(self) -> bool:
        """Whether a path carries its datagrams, and nothing could be told of how long they take."""
        return bool(self.limit.path) and self.carries and self.verdict == "inconclusive"


def judged(limits: Sequence[Limit], evidence: Evidence) -> list[Finding]:
    """Each limit against the evidence."""
    return [_judged(limit, evidence) for limit in limits]


def confirmed(findings: Sequence[Finding], again: Callable[[list[Limit]], Evidence]) -> list[Finding]:
    """The findings, with those on latency that failed judged by a second measurement instead."""
    suspects = {finding.limit: finding for finding in findings if finding.limit.path and finding.verdict == "fail"}
    if not suspects:
        return list(findings)
    second = {finding.limit: finding for finding in judged(list(suspects), again(list(suspects)))}
    return [
        replace(second[one.limit], found=f"{second[one.limit].found}; measured before: {one.found}")
        if one.limit in second
        else one
        for one in findings
    ]


def verdict(findings: Sequence[Finding]) -> Verdict:
    """The verdict on all: a failure counts more than what proves nothing."""
    found = {finding.verdict for finding in findings}
    return "fail" if "fail" in found else "inconclusive" if "inconclusive" in found else "pass"


def _judged(limit: Limit, evidence: Evidence) -> Finding:
    if limit.swap:
        return Finding(limit, *_swap(limit, evidence))
    return Finding(limit, *_path(limit, evidence), carries=_ratio(limit.path, DIRECT.name, evidence) is not None)


def _swap(limit: Limit, evidence: Evidence) -> tuple[Verdict, str]:
    """Every swap has to be proved; what one of them lost too much fails all the same when another proves nothing."""
    runs = evidence.swaps.get(limit.swap, ())
    beside = _lost_by_base(evidence.swaps.get(of_base(limit.swap), ()))
    if broken := _broken(limit, [run for run in runs if run["verdict"] != "inconclusive"]):
        return "fail", broken + beside
    if unproved := _unproved(limit, runs, evidence):
        return "inconclusive", unproved + beside
    return "pass", (runs[-1]["why"] if isinstance(limit.lost, str) else _losses(runs)) + beside


def _broken(limit: Limit, runs: Sequence[Run]) -> str:
    """How these swaps break the limit, "" when they keep it."""
    may_lose = limit.lost if isinstance(limit.lost, int) else None
    if may_lose is not None and (over := sum(max(0, _lost([run]) - may_lose) for run in runs)):
        return f"{_losses(runs)}, {over} too many"
    # The scenario's own verdict allows no loss: one that lost what it may has failed for that, as far as can be told.
    failed = [run for run in runs if run["verdict"] == "fail" and not (may_lose and _lost([run]))]
    return str(failed[0]["why"]) if failed else ""


def _unproved(limit: Limit, runs: Sequence[Run], evidence: Evidence) -> str:
    """Why these swaps prove nothing, "" when all of them do."""
    if limit.swap in evidence.absent or not runs:
        return _unmeasured(limit.swap, evidence)
    return next((run["why"] for run in runs if run["verdict"] == "inconclusive"), "")


def _lost_by_base(runs: Sequence[Run]) -> str:
    """The base's own swaps in words, to stand beside; "" without any."""
    return f"; the base: {runs[-1]['why'] if runs[-1]['verdict'] == 'inconclusive' else _losses(runs)}" if runs else ""


def _losses(runs: Sequence[Run]) -> str:
    """What was lost over these swaps, by fate; nothing, with its bound."""
    sent = sum(run["ledger"]["sent"] for run in runs)
    counts = {fate: sum(run["ledger"][fate] for run in runs) for fate in LOST}
    fates = ", ".join(f"{count} {fate}" for fate, count in counts.items() if count)
    swaps = f" in {len(runs)} swaps" if len(runs) > 1 else ""
    return f"lost {_lost(runs)} of {sent}{swaps}" + (f" ({fates})" if fates else f", below {3 / sent:.1e} at 95 %")


def _lost(runs: Sequence[Run]) -> int:
    return sum(run["ledger"][fate] for run in runs for fate in LOST)


def _path(limit: Limit, evidence: Evidence) -> tuple[Verdict, str]:
    """A path is too slow when the whole interval is above the limit, quick enough when all of it is below."""
    against = of_base(limit.path) if limit.against == BASE else DIRECT.name
    one = _ratio(limit.path, against, evidence)
    if one is None:
        missing = next((name for name in (against, limit.path) if name in evidence.absent), limit.path)
        return "inconclusive", _unmeasured(missing, evidence)
    base = _ratio(of_base(limit.path), against, evidence) if against == DIRECT.name else None
    beside = f"; the base: {_times(base)}" if base else ""
    found = f"{_times(one)}, limit {limit.ratio}"
    if noise := evidence.noise or _noise(evidence):
        return "inconclusive", f"{found}; {noise}{beside}"
    if one.low > limit.ratio:
        return "fail", f"{found}: {one.low - limit.ratio:.3f} too much at least{beside}"
    if one.high > limit.ratio:
        return "inconclusive", f"{found}: the interval holds the limit{beside}"
    return "pass", found + beside


def _noise(evidence: Evidence) -> str:
    """Why two paths cannot be told apart here, "" when they can: two direct ones have to be alike."""
    one = _ratio(DIRECT_AGAIN.name, DIRECT.name, evidence)
    if one is None or (one.low <= 1 + ALIKE and one.high >= 1 - ALIKE):
        return ""
    return f"the machine was busy: a second direct path took {_times(one)}"


def _ratio(path: str, against: str, evidence: Evidence) -> Comparison | None:
    """The round trip by one path against another's; None where they were not measured together."""
    turns_us = evidence.turns_us(path, against)
    return compare(turns_us, seed=SEED, against=against)[0] if turns_us[path] else None


def _times(one: Comparison) -> str:
    return f"{one.ratio:.3f} times ({one.low:.3f} - {one.high:.3f}, n = {one.turns})"


def _unmeasured(name: str, evidence: Evidence) -> str:
    why = evidence.absent.get(name, "")
    return f"{name} was not measured" + (f": {why}" if why else "")
