"""When a drain is over: a pure verdict; the caller owns the clock and does the waiting."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Drain", "Verdict"]


class Verdict(Enum):
    """What to do about the flows that stay."""

    DRAINED = "drained"
    EXPIRED = "expired"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Drain:
    """A drain that must be over at `deadline_s`, on the clock from which `now_s` is read."""

    deadline_s: float

    def verdict(self, left: int, *, now_s: float) -> Verdict:
        """DRAINED when no flow is left, EXPIRED when the deadline has come, else WAIT."""
        if left == 0:
            return Verdict.DRAINED
        return Verdict.EXPIRED if now_s >= self.deadline_s else Verdict.WAIT

    def remaining_s(self, *, now_s: float) -> float:
        """Seconds until what is left is cut, never below 0."""
        return max(0.0, self.deadline_s - now_s)
