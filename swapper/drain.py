"""When a drain is over: a pure verdict; the caller owns the clock and does the waiting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

__all__ = ["Drain", "Settling", "Verdict"]


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


@dataclass(frozen=True, slots=True)
class Settling:
    """A backend that may be stopped once it was quiet for `quiet_s` in a row, or when `deadline_s` has come."""

    quiet_s: float
    deadline_s: float
    quiet_since_s: float | None = None

    def seen(self, *, busy: bool, now_s: float) -> Settling:
        """What is known after one more look."""
        if busy:
            return replace(self, quiet_since_s=None)
        return self if self.quiet_since_s is not None else replace(self, quiet_since_s=now_s)

    def verdict(self, *, now_s: float) -> Verdict:
        """DRAINED after the quiet time, EXPIRED when the deadline has come, else WAIT."""
        if self.quiet_since_s is not None and now_s - self.quiet_since_s >= self.quiet_s:
            return Verdict.DRAINED
        return Verdict.EXPIRED if now_s >= self.deadline_s else Verdict.WAIT
