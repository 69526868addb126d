"""How long many exchanges took, kept as counts in bins that each are 1 % wider than the one before.

Whatever the sample, it stays small, two of them add up, and every quantile is known to 1 %. Pure.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["GROWTH", "UNIT_US", "Histogram"]

UNIT_US: Final = 0.01  # where bin 0 begins; what is shorter has a bin with a negative number
GROWTH: Final = 1.01


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many times fell into each bin; bin k holds those of `UNIT_US * GROWTH**k` and more, up to the next."""

    counts: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, times_ns: Sequence[int]) -> Histogram:
        """The histogram of these times. Raises ValueError for one that is not above zero."""
        times_us = np.array(times_ns) / 1000
        if (times_us <= 0).any():
            raise ValueError(f"{min(times_ns)} ns is no time that an exchange can take")
        bins = np.floor(np.log(times_us / UNIT_US) / math.log(GROWTH)).astype(int)
        numbers, counts = np.unique(bins, return_counts=True)
        return cls(Counter(dict(zip(numbers.tolist(), counts.tolist(), strict=True))))

    @classmethod
    def merged(cls, parts: Iterable[Histogram]) -> Histogram:
        """All their times in one."""
        counts: Counter[int] = Counter()
        for part in parts:
            counts.update(part.counts)
        return cls(counts)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Histogram:
        """What `to_json` wrote. Raises ValueError for bins of another shape."""
        if (document["unit_us"], document["growth"]) != (UNIT_US, GROWTH):
            raise ValueError(f"bins from {document['unit_us']} us by {document['growth']} cannot be added to these")
        return cls(Counter({int(number): count for number, count in document["counts"].items()}))

    def to_json(self) -> dict[str, Any]:
        """The shape of the bins, and the counts of those that are not empty."""
        counts = {str(number): self.counts[number] for number in sorted(self.counts)}
        return {"unit_us": UNIT_US, "growth": GROWTH, "counts": counts}

    @property
    def n(self) -> int:
        """How many times there are."""
        return self.counts.total()

    def quantile_us(self, share: float) -> float:
        """The smallest time that at least `share` of all do not exceed, to 1 %; 1.0 is the longest.

        Raises ValueError where there is no time at all.
        """
        left = max(1, math.ceil(share * self.n))
        for number in sorted(self.counts):
            left -= self.counts[number]
            if left <= 0:
                return UNIT_US * math.pow(GROWTH, number + 0.5)
        raise ValueError("a quantile of nothing")
