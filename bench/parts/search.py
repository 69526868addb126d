"""The search for the highest rate without loss. Pure: from the tries so far, which rate is next, and what is found."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FLOOR_PER_S", "TOP_PER_S", "Effort", "Try", "found", "next_rate", "proof"]

FLOOR_PER_S: Final = 1_000
TOP_PER_S: Final = 400_000
LATE: Final = 0.01  # of the slots: more, and the schedule was not kept
KEPT: Final = 0.99  # of the rate that was asked for


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to do for one path."""

    seconds: float  # a try
    most_tries: int
    confirmations: int  # of the rate that is found
    within: float  # as a ratio, between a rate without loss and one with


@dataclass(frozen=True, slots=True)
class Try:
    """One load at one rate."""

    rate_per_s: int
    sent: int
    lost: int
    late_slots: int
    reached_per_s: int  # by the sender

    @property
    def is_kept(self) -> bool:
        """Whether the sender kept the rate, if not every slot."""
        return self.reached_per_s >= KEPT * self.rate_per_s

    @property
    def is_bursty(self) -> bool:
        """Whether the sender was late and caught up again; one that never does sends evenly, as fast as it can."""
        return self.is_kept and self.late_slots > LATE * self.sent


def next_rate(tries: Sequence[Try], effort: Effort) -> int | None:
    """The rate to try next; None when the search is over.

    What is lost after the sender itself was late may have been lost to the burst in which it caught up: that rate is
    tried once more. What is carried in spite of a burst is carried. No rate is tried above one that the sender never
    reached: it would be the same load again.
    """
    if not tries:
        return TOP_PER_S
    if len(tries) >= effort.most_tries:
        return None
    last, lossy = tries[-1], _lossy(tries)
    if last.lost and (lossy is None or last.rate_per_s < lossy):
        return last.rate_per_s
    proven = proof(tries)
    low = proven[0].rate_per_s if proven else FLOOR_PER_S
    if lossy is not None and lossy > low * effort.within and _can_be_kept(proven):
        return int(float(f"{math.sqrt(low * lossy):.2g}"))
    return low if low != lossy and len(proven) <= effort.confirmations else None


def proof(tries: Sequence[Try]) -> list[Try]:
    """The tries without loss at the highest rate that has them, below every rate at which the path lost."""
    lossy = _lossy(tries)
    clean = [one for one in tries if not one.lost and (lossy is None or one.rate_per_s < lossy)]
    highest = max((one.rate_per_s for one in clean), default=0)
    return [one for one in clean if one.rate_per_s == highest]


def found(tries: Sequence[Try]) -> dict[str, Any]:
    """What the tries come to, as JSON: a rate of 0 says that the path lost at every rate tried."""
    proven = proof(tries)
    kept = _can_be_kept(proven)
    # Whatever disturbs a sender only takes away from what it reaches.
    carried = [one.rate_per_s if kept else one.reached_per_s for one in proven]
    limited_by: Literal["loss", "sender"] = "loss" if kept and _lossy(tries) is not None else "sender"
    return {
        "rate_per_s": _rounded(max(carried, default=0)),
        "limited_by": limited_by,
        "tries": [asdict(one) for one in tries],
    }


def _can_be_kept(tries: Sequence[Try]) -> bool:
    """Whether the sender has ever kept the rate of these tries; True as long as there are none."""
    return not tries or any(one.is_kept for one in tries)


def _lossy(tries: Sequence[Try]) -> int | None:
    """The lowest rate whose losses are the path's own: without a burst before them, or twice."""
    lost = [one for one in tries if one.lost]
    times = Counter(one.rate_per_s for one in lost)
    return min((one.rate_per_s for one in lost if not one.is_bursty or times[one.rate_per_s] > 1), default=None)


def _rounded(rate: int) -> int:
    """Down to two significant digits."""
    return rate - rate % int(10 ** max(0, len(str(rate)) - 2))
