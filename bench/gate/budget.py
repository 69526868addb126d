"""The budget: limits that a change has to keep, each with its reason. Reads and checks them; measures nothing."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.pingpong import DIRECT
from swapper.tomltable import Table, shown_as

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["BASE", "SHIPPED", "BudgetError", "Known", "Limit", "load"]

SHIPPED: Final = Path(__file__).parents[1] / "budget.toml"
BASE: Final = "base"
# What a control has to lose, by what its scenario expects: harness.expect holds a run to it.
MODELS: Final = {"flush": "rate x service time", "pinned": "everything"}


class BudgetError(Exception):
    """A budget that cannot be used; all its mistakes are listed."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a swap by a technique may lose, or what a path's round trip may be as a ratio to another's.

    `lost` is a number of datagrams for each swap, or the model of a control, which has to lose that.
    """

    name: str
    reason: str
    swap: str = ""
    lost: int | str = 0
    path: str = ""
    against: str = DIRECT.name
    ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Known:
    """What a limit can name: techniques with what their scenarios expect, and paths."""

    techniques: Mapping[str, str]
    paths: Collection[str]


def load(path: Path, known: Known) -> list[Limit]:
    """The limits of a budget. Raises BudgetError for a file that is no budget, or that names what is not known."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BudgetError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BudgetError(f"{path}: not valid TOML: {error}") from error
    tables = document.get("limit")
    if document.keys() != {"limit"} or not isinstance(tables, list) or not tables:
        raise BudgetError(f"{path}: has to hold [[limit]] tables, and nothing else")
    mistakes: list[str] = []
    limits = [_limit(Table(path, mistakes, f"limit[{n}]", table), known) for n, table in enumerate(tables)]
    names = [limit.name for limit in limits]
    mistakes += [f"{path}: two limits are called {shown_as(name)}" for name in sorted(_twice(names))]
    if mistakes:
        raise BudgetError("\n".join(mistakes))
    return limits


def _limit(table: Table, known: Known) -> Limit:
    name, reason = (_text(table, key) for key in ("name", "reason"))
    if ("swap" in table.values) == ("path" in table.values):
        table.mistake("swap", "it and path, or neither", "one of the two")
        return Limit(name, reason)
    limit = _of_swap(table, name, reason, known) if "swap" in table.values else _of_path(table, name, reason, known)
    table.close()
    return limit


def _of_swap(table: Table, name: str, reason: str, known: Known) -> Limit:
    swap = _one_of(table, "swap", known.techniques)
    lost = table.value("lost")
    model = MODELS.get(known.techniques.get(swap, ""))
    if isinstance(lost, int) and not isinstance(lost, bool) and lost >= 0:
        return Limit(name, reason, swap=swap, lost=lost)
    if isinstance(lost, str) and lost == model:
        return Limit(name, reason, swap=swap, lost=lost)
    modelled = f", or {shown_as(model)}, which is the model of {swap}" if model else ""
    table.mistake("lost", "nothing" if lost is None else shown_as(lost), f"an integer of 0 or more{modelled}")
    return Limit(name, reason, swap=swap)


def _of_path(table: Table, name: str, reason: str, known: Known) -> Limit:
    path = _one_of(table, "path", known.paths)
    against = _one_of(table, "against", (DIRECT.name, BASE)) if "against" in table.values else DIRECT.name
    allowed = "a ratio above 0, such as 1.12"
    ratio = table.positive("ratio", allowed)
    if "ratio" not in table.values:
        table.mistake("ratio", "nothing", allowed)
    return Limit(name, reason, path=path, against=against, ratio=ratio or 0.0)


def _text(table: Table, key: str) -> str:
    text = table.text(key)
    if key not in table.values:
        table.mistake(key, "nothing", "a text")
    return text


def _one_of(table: Table, key: str, allowed: Collection[str]) -> str:
    value = table.value(key)
    if isinstance(value, str) and value in allowed:
        return value
    near = difflib.get_close_matches(value, allowed, n=1) if isinstance(value, str) else []
    hint = f" (did you mean {shown_as(near[0])}?)" if near else ""
    table.mistake(key, shown_as(value) + hint, ", ".join(map(shown_as, allowed)))
    return ""


def _twice(names: list[str]) -> set[str]:
    return {name for name in names if name and names.count(name) > 1}
