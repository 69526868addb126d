"""Whether a machine was quiet enough for a verdict on latency: from what others used, and a second direct path. Pure.

A loss is a loss on any machine. A difference of a microsecond is one only where nobody else moves the clock.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.processors import Usage

__all__ = ["COMPARED", "Noise", "again_ratio", "judged"]

MOST_AT_REST: Final = 0.5  # processors, while the bench does nothing
MOST_OF_OTHERS: Final = 0.2  # processors, mean over the steps that time round trips
MOST_STOLEN: Final = 0.02
MOST_APART: Final = 0.01  # of two direct paths, as a ratio
COMPARED: Final = "two cores"  # as client and backend are on two machines


@dataclass(frozen=True, slots=True)
class Noise:
    """The verdict in words, "" for a quiet machine, and the figures that it rests on; None for what was not seen."""

    busy: bool
    why: str
    at_rest: float | None
    others: float | None
    stolen: float | None
    again_ratio: float | None

    def to_json(self) -> dict[str, Any]:
        """What the document of a run has under `noise`."""
        return asdict(self)


def judged(*, at_rest: Sequence[Usage], timed: Sequence[Usage], again_ratio: float | None) -> Noise:
    """The verdict on a run: rests before it was begun or gone on with, its timed steps, and a second direct path."""
    rest = max((usage.busy for usage in at_rest), default=None)
    others, stolen = _mean("others", timed), _mean("stolen", timed)
    reasons = []
    if rest is not None and rest > MOST_AT_REST:
        reasons.append(f"others used {rest:.2f} processors before it began (at most {MOST_AT_REST})")
    if others is not None and others > MOST_OF_OTHERS:
        reasons.append(f"others used {others:.2f} processors while round trips were timed (at most {MOST_OF_OTHERS})")
    if stolen is not None and stolen > MOST_STOLEN:
        reasons.append(f"the hypervisor took {stolen:.3f} processors away meanwhile (at most {MOST_STOLEN})")
    if again_ratio is not None and abs(again_ratio - 1) > MOST_APART:
        reasons.append(
            f"a second direct path took {again_ratio:.3f} times as long (within {MOST_APART:.0%} on a quiet machine)"
        )
    return Noise(bool(reasons), "; ".join(reasons), rest, others, stolen, again_ratio)


def again_ratio(rtt: Mapping[str, Any]) -> float | None:
    """The second direct path against the first, over the turns of all rounds; None where there was none."""
    both = [
        (routes["direct"]["turns_us"], routes["direct, again"]["turns_us"])
        for step, routes in rtt.items()
        if step.startswith(COMPARED) and "direct, again" in routes
    ]
    ratios = [again / first for firsts, agains in both for first, again in zip(firsts, agains, strict=True)]
    return median(ratios) if ratios else None


def _mean(name: str, usages: Sequence[Usage]) -> float | None:
    seconds = sum(usage.seconds for usage in usages)
    return sum(getattr(usage, name) * usage.seconds for usage in usages) / seconds if seconds else None
