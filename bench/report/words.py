"""Numbers as people read them, each with what it rests on."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["bound", "brief", "interval", "least_most", "lost_of", "rounded", "span"]


def bound(sent: int) -> str:
    """How rare a loss has to be for none to be seen among so many: below 3/N, 95 % (the rule of three)."""
    return f"below 1 in {sent // 3:,}" if sent >= 3 else "too few to tell"


def lost_of(lost: int, sent: int) -> str:
    """What was lost, for zero with its bound."""
    if not sent:
        return "–"
    return f"{lost:,} of {sent:,}" if lost else f"0 of {sent:,} ({bound(sent)})"


def interval(low: float, high: float) -> str:
    """A confidence interval of a ratio."""
    return f"{low:.3f} – {high:.3f}"


def rounded(value: float) -> str:
    """Three significant digits, thousands parted."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def least_most(values: Sequence[float]) -> str:
    """From where to where they go."""
    low, high = rounded(min(values)), rounded(max(values))
    return low if low == high else f"{low} – {high}"


def span(values: Sequence[float]) -> str:
    """Their median, and from where to where they go."""
    if not values:
        return "–"
    middle, ends = rounded(median(values)), least_most(values)
    return middle if middle == ends else f"{middle} ({ends})"


def brief(value: float) -> str:
    """A number for an axis: 1,000 is 1k."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size and not value % (size / 10):
            return f"{value / size:g}{letter}"
    return f"{value:,g}"
