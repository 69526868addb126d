"""Where a value lies on the width or the height of a picture, as a share of it from 0 to 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Axis", "linear", "logarithmic"]

ZERO_APART: Final = 0.1  # of a logarithmic axis that also shows 0: the room between 0 and its lowest value
MOST_TICKS: Final = 10  # more, and only powers of ten are named


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale with its ticks; what lies outside is drawn at the nearer end."""

    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool = False
    begins_at: float = 0.0  # the share at which `low` lies

    def at(self, value: float) -> float:
        """The share of the width at which a value lies."""
        if not self.is_log:
            share = (value - self.low) / (self.high - self.low)
        elif value > 0:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            return 0.0
        return self.begins_at + (1 - self.begins_at) * min(max(share, 0.0), 1.0)


def linear(values: Iterable[float], *, steps: int = 4) -> Axis:
    """An axis around all the values, in about so many steps."""
    found = list(values)
    low, high = min(found), max(found)
    step = _nice((high - low) / steps or 0.1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(number * step, 10) for number in range(first, max(last, first + 1) + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def logarithmic(values: Iterable[float], *, with_zero: bool = False) -> Axis:
    """A logarithmic axis around all the values above 0; with zero, that has a place of its own at the low end."""
    above = [value for value in values if value > 0] or [1.0]
    places = [_nice_below(min(above))]
    while places[-1] < max(above) or len(places) == 1:
        places.append(_nice(places[-1] * 1.5))
    named = places if len(places) <= MOST_TICKS else [place for place in places if f"{place:e}".startswith("1")]
    return Axis(
        places[0],
        places[-1],
        ((0.0,) if with_zero else ()) + tuple(named),
        is_log=True,
        begins_at=ZERO_APART if with_zero else 0.0,
    )


def _nice(value: float) -> float:
    """The lowest of ..., 1, 2, 5, 10, 20, ... that is not below the value."""
    return min(place for place in _places(value) if place >= value * (1 - 1e-9))


def _nice_below(value: float) -> float:
    return max(place for place in _places(value) if place <= value * (1 + 1e-9))


def _places(value: float) -> list[float]:
    power = math.floor(math.log10(value))
    return [float(f"{digit}e{exponent}") for exponent in (power - 1, power, power + 1) for digit in (1, 2, 5)]
