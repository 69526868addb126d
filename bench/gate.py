"""The gate: what was measured against a budget, every limit with its reason. Pure: values in, verdicts out."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench.report import LOST

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BudgetError", "Finding", "Limit", "judged", "load", "verdict"]

Verdict = Literal["pass", "fail", "inconclusive"]
KEYS = {"name", "swap", "lost", "path", "ratio", "reason"}
REPRODUCE_SWAP = "swapper-bench run --only swaps"
REPRODUCE_RTT = "swapper-bench run --only rtt"


class BudgetError(Exception):
    """A budget that cannot be used; all its mistakes are listed."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Either how many datagrams a swap of a technique may lose, or how much a path may cost as a ratio to direct."""

    name: str
    reason: str
    swap: str = ""
    lost: int = 0
    path: str = ""
    ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one limit showed, in words, and the command that shows it again."""

    limit: Limit
    verdict: Verdict
    found: str
    reproduce: str


def load(path: Path) -> list[Limit]:
    """The limits of a budget. Raises BudgetError for a file that is no budget, or that has a limit unknown here."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BudgetError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BudgetError(f"{path}: not valid TOML: {error}") from error
    tables = document.get("limit")
    if document.keys() != {"limit"} or not isinstance(tables, list) or not tables:
        raise BudgetError(f"{path}: holds no [[limit]]")
    mistakes = [f"{path}: limit {n}: {why}" for n, table in enumerate(tables, 1) for why in _mistakes(table)]
    if mistakes:
        raise BudgetError("\n".join(mistakes))
    return [Limit(**table) for table in tables]


def judged(limits: list[Limit], document: dict[str, Any]) -> list[Finding]:
    """Each limit against the results of a run."""
    return [_swap(limit, document) if limit.swap else _path(limit, document) for limit in limits]


def verdict(findings: list[Finding]) -> Verdict:
    """The verdict on all: a failure counts more than what proves nothing."""
    found = {finding.verdict for finding in findings}
    return "fail" if "fail" in found else "inconclusive" if "inconclusive" in found else "pass"


def _mistakes(table: Any) -> list[str]:
    if not isinstance(table, dict):
        return ["found no table"]
    found = [f"unknown key {key}; allowed: {', '.join(sorted(KEYS))}" for key in table.keys() - KEYS]
    found += [f"{key} is missing" for key in ("name", "reason") if not isinstance(table.get(key), str)]
    kinds = {"swap": ("lost", int), "path": ("ratio", float)}
    named = [kind for kind in kinds if isinstance(table.get(kind), str)]
    if len(named) != 1:
        return [*found, "names neither a swap nor a path, or both"]
    key, wanted = kinds[named[0]]
    if not isinstance(table.get(key), wanted) or isinstance(table[key], bool) or table[key] < 0:
        found.append(f"{key} has to be {'an integer of 0 or more' if wanted is int else 'a ratio such as 1.12'}")
    return found


def _swap(limit: Limit, document: dict[str, Any]) -> Finding:
    run = next((run for run in document["swaps"] if run["technique"] == limit.swap), None)
    if run is None:
        return Finding(limit, "inconclusive", f"{limit.swap} was not measured", REPRODUCE_SWAP)
    if not run["ledger"] or run["verdict"] == "inconclusive":
        return Finding(limit, "inconclusive", run["why"], REPRODUCE_SWAP)
    lost, sent = sum(run["ledger"][fate] for fate in LOST), run["ledger"]["sent"]
    fates = ", ".join(f"{run['ledger'][fate]} {fate}" for fate in LOST if run["ledger"][fate])
    if lost > limit.lost:
        return Finding(limit, "fail", f"lost {lost} of {sent} ({fates}), {lost - limit.lost} too many", REPRODUCE_SWAP)
    return Finding(
        limit, "pass", f"lost {lost} of {sent}" + ("" if lost else f", below {3 / sent:.1e} at 95 %"), REPRODUCE_SWAP
    )


def _path(limit: Limit, document: dict[str, Any]) -> Finding:
    """A path is too slow when the whole interval is above the limit, quick enough when all of it is below."""
    one = next((one for one in document["comparisons"]["two cores"] if one["name"] == limit.path), None)
    if one is None:
        return Finding(limit, "inconclusive", f"{limit.path} was not measured", REPRODUCE_RTT)
    found = f"{one['ratio']:.3f} ({one['low']:.3f} - {one['high']:.3f}, n = {one['turns']}) against {limit.ratio:.2f}"
    if document["noisy"]:
        return Finding(limit, "inconclusive", f"{found}; the machine was busy", REPRODUCE_RTT)
    if one["low"] > limit.ratio:
        return Finding(limit, "fail", f"{found}: {one['low'] - limit.ratio:.3f} too much at least", REPRODUCE_RTT)
    if one["high"] > limit.ratio:
        return Finding(limit, "inconclusive", f"{found}: the interval holds the limit", REPRODUCE_RTT)
    return Finding(limit, "pass", found, REPRODUCE_RTT)
