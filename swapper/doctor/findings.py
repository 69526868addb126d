"""What a check is and what it finds: values only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swapper.config import Config

__all__ = ["Check", "Finding", "Level", "Problem"]


class Level(StrEnum):
    """How bad it is: FAIL takes a service down or keeps it from swapping, WARN can come to that."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Problem:
    """What one look found, and the command that mends it ("" where `found` says it or nothing needs mending)."""

    level: Level
    found: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at; `well` is what is said when `look` finds no problem."""

    name: str
    well: str
    look: Callable[[Config], Iterable[Problem]]
    privileged: bool = True  # whether it needs CAP_NET_ADMIN


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, for people and for `--json`."""

    check: str
    level: Level
    found: str
    mend: str = ""
