"""The results of a run as a comment on a pull request: one table of swaps, one of hops, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.noise import COMPARED
from bench.report import about
from bench.report.costing import highest
from bench.report.summaries import Found
from bench.report.words import interval, lost_of, rounded, span
from harness.pingpong import DIRECT

if TYPE_CHECKING:
    from bench.parts import cost
    from bench.report.summaries import Hop, Swaps

__all__ = ["markdown"]


def markdown(document: dict[str, Any]) -> str:
    """Two tables and a line for each doubt."""
    found = Found.of(document)
    blocks = [
        _table(("technique", "swaps", "lost", "blackout, ms"), [_swap(one) for one in found.swaps]),
        _table(
            ("path", "to direct", "95 % interval", "p50 / p99, µs", "CPU, µs", "memory, MiB", "lossless, /s"),
            _hops(found),
        ),
        [f"- {_cell(doubt)}" for doubt in about.doubts(document)],
        [f"{_cell(about.origin(document))} The bound of a zero is 3/N, at 95 %."],
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    ruled = [head, ("---", *("--:" for _ in head[1:])), *rows]
    return [f"| {' | '.join(map(_cell, row))} |" for row in ruled]


def _cell(text: str) -> str:
    """Plain text where Markdown and HTML have no meaning."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _swap(one: Swaps) -> tuple[str, ...]:
    lost = lost_of(one.lost, one.sent), span(one.blackouts_ms)
    connections = f"connections: {lost_of(one.faulty, one.tcp['opened'])}", "–"
    return one.technique, str(len(one.lost_each)), *(connections if one.is_tcp else lost)


def _hops(found: Found) -> list[tuple[str, ...]]:
    """A row for each path that any of the parts has."""
    trips = {hop.name: hop for hop in found.hops.get(COMPARED, [])}
    costs = {row.name: row for row in found.costs}
    capacities = {row.name: f"{highest(row)} (n = {row.n})" for row in found.capacities}
    return [
        (path, *_trip(trips.get(path)), *_host(costs.get(path)), capacities.get(path, "–"))
        for path in dict.fromkeys((*trips, *costs, *capacities))
    ]


def _trip(hop: Hop | None) -> tuple[str, ...]:
    if hop is None:
        return ("–",) * 3
    one = hop.summary
    compared = "–" if hop.name == DIRECT.name else f"{interval(one.low, one.high)} (n = {one.turns:,})"
    return f"{one.ratio:.3f}", compared, f"{rounded(one.p50_us)} / {rounded(one.p99_us)} (n = {one.n:,})"


def _host(row: cost.Row | None) -> tuple[str, ...]:
    if row is None:
        return ("–",) * 2
    return f"{row.system_us:.2f} (n = {row.n})", "–" if row.proxy_memory_mib is None else rounded(row.proxy_memory_mib)
