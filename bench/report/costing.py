"""What a path takes of the host: CPU time and memory at a fixed rate, and the highest rate without loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report.axis import Axis, linear
from bench.report.drawing import bar, dot, scale, strip
from bench.report.tables import Row, table
from bench.report.words import brief, rounded
from harness.pingpong import DIRECT

if TYPE_CHECKING:
    from bench.parts import capacity, cost
    from bench.report.summaries import Found

__all__ = ["highest", "section"]


def section(found: Found) -> str:
    """CPU time, memory and capacity of each path; "" where neither was measured."""
    parts = _costs(found.costs, found.costs_at_per_s) + _capacities(found.capacities)
    return f'<section id="host"><h2>What it takes of the host</h2>{parts}</section>' if parts else ""


def highest(row: capacity.Row) -> str:
    """A path's capacity in words: where the sender gave up first, the path may carry more."""
    if not row.rate_per_s:
        return f"loses down to {row.lowest_per_s:,}"
    return f"at least {row.rate_per_s:,}" if row.limited_by == "sender" else f"{row.rate_per_s:,}"


def _costs(found: list[cost.Row], at_per_s: float) -> str:
    if not found:
        return ""
    axis = linear([0.0, *(row.system_us for row in found)])
    rows = [Row(row.name, _cost_cells(row), _cost_picture(row, axis)) for row in found]
    caption = (
        f"CPU time of the whole host for a datagram, at {at_per_s:,.0f} a second; the harness's own sender and "
        "receiver are in it and cost the same on every path. The darker part of a bar is the proxy's own time. "
        "Medians over the rounds; memory is the proxy's proportional set size."
    )
    head = ("path", "rounds", "CPU, µs", "beyond direct, µs", "proxy, µs", "memory, MiB")
    pictured = "µs of CPU for a datagram"
    return f"<h3>CPU time and memory</h3>{table(caption, head, rows, pictured=pictured, scale=scale(axis, brief))}"


def _cost_cells(row: cost.Row) -> tuple[str, ...]:
    is_direct = row.name == DIRECT.name
    return (
        str(row.n),
        f"{row.system_us:.2f}",
        "–" if is_direct or row.adds_us is None else f"{row.adds_us:+.2f}",
        "–" if row.proxy_us is None else f"{row.proxy_us:.2f}",
        "–" if row.proxy_memory_mib is None else rounded(row.proxy_memory_mib),
    )


def _cost_picture(row: cost.Row, axis: Axis) -> str:
    title = f"{row.name}: {row.system_us:.2f} µs of CPU for a datagram, n = {row.n} rounds"
    own = bar(axis.at(row.proxy_us), "own") if row.proxy_us else ""
    return strip(title, axis, bar(axis.at(row.system_us)) + own)


def _capacities(found: list[capacity.Row]) -> str:
    if not found:
        return ""
    axis = linear([0.0, *(row.rate_per_s for row in found)])
    rows = [Row(row.name, (str(row.n), highest(row)), _capacity_picture(row, axis)) for row in found]
    caption = (
        "The highest rate at which every datagram of n tries arrived, found by halving; “at least” where the sender "
        "could not keep a higher rate, so that the path may carry more. The sender and the receiver work on cores of "
        "the same host: a proxy has to share them where there are but two."
    )
    head, pictured = ("path", "n", "a second"), "datagrams a second"
    return (
        f"<h3>Highest rate without loss</h3>{table(caption, head, rows, pictured=pictured, scale=scale(axis, brief))}"
    )


def _capacity_picture(row: capacity.Row, axis: Axis) -> str:
    title = f"{row.name}: {highest(row)} datagrams a second, n = {row.n} tries"
    if not row.rate_per_s:
        return strip(title, axis, dot(0.0, "bad"))
    return strip(title, axis, bar(axis.at(row.rate_per_s), "open" if row.limited_by == "sender" else ""))
