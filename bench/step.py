"""A bench run is a list of steps. Each is measured as a whole and kept at once, so an interrupted run goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.proxies import Proxy

__all__ = ["ROUND", "Plan", "Step"]

ROUND: Final = ", round "  # between what a step measures and the number of its round


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is asked for; the same plan gives the same steps in the same order."""

    seed: int = 1
    quick: bool = False
    rounds: int = 10
    rtt_s: float = 300.0  # of round trips in all
    proxies: tuple[Proxy, ...] = field(default=())  # those that come up on this host
    lacking: frozenset[str] = frozenset()  # the dataplanes that do not, by the names of their routes


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of a run: `measure` returns what JSON can hold, or raises one of bench.failures."""

    part: str
    name: str  # unique within the part
    about_s: float
    measure: Callable[[], Any]
