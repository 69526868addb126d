"""What a path takes of the host: CPU time and memory at a fixed rate, and the highest rate without loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.axis import Axis, linear
from bench.report.drawing import bar, dot, scale, strip
from bench.report.tables import Row, table
from bench.report.words import brief, rounded
from harness.pingpong import DIRECT

if TYPE_CHECKING:
    from bench.report.summaries import Cost, Found

__all__ = ["highest", "section"]


def section(found: Found) -> str:
    """CPU time, memory and capacity of each path; "" where neither was measured."""
    parts = _costs(found.costs) + _capacities(found.capacities)
    return f'<section id="host"><h2>What it takes of the host</h2>{parts}</section>' if parts else ""


def highest(found: dict[str, Any]) -> str:
    """A path's capacity in words: where the sender gave up first, the path may carry more."""
    if not found["rate_per_s"]:
        return "loses at every rate"
    least = "at least " if found["limited_by"] == "sender" else ""
    return f"{least}{found['rate_per_s']:,.0f}"


def _costs(found: list[Cost]) -> str:
    if not found:
        return ""
    axis = linear([0.0, *(cost.system_us for cost in found)])
    direct_us = next((cost.system_us for cost in found if cost.path == DIRECT.name), None)
    rows = [Row(cost.path, _cells(cost, direct_us), _cost_picture(cost, axis)) for cost in found]
    caption = (
        f"CPU time of the whole host for a datagram, at {found[0].rate_per_s:,.0f} a second; the harness's own sender "
        "and receiver are in it and cost the same on every path. The darker part of a bar is the proxy's own time. "
        "Medians over the rounds; memory is the proxy's proportional set size."
    )
    head = ("path", "rounds", "datagrams", "CPU, µs", "beyond direct", "proxy, µs", "memory, MiB")
    pictured = "µs of CPU for a datagram"
    return f"<h3>CPU time and memory</h3>{table(caption, head, rows, pictured=pictured, scale=scale(axis, brief))}"


def _cells(cost: Cost, direct_us: float | None) -> tuple[str, ...]:
    beyond = f"{cost.system_us - direct_us:+.2f}" if direct_us is not None and cost.path != DIRECT.name else "–"
    return (
        str(cost.rounds),
        f"{cost.datagrams:,}",
        f"{cost.system_us:.2f}",
        beyond,
        "–" if cost.proxy_us is None else f"{cost.proxy_us:.2f}",
        "–" if cost.proxy_memory_mib is None else rounded(cost.proxy_memory_mib),
    )


def _cost_picture(cost: Cost, axis: Axis) -> str:
    title = f"{cost.path}: {cost.system_us:.2f} µs of CPU for a datagram, n = {cost.datagrams:,}"
    own = bar(axis.at(cost.proxy_us), "own") if cost.proxy_us else ""
    return strip(title, axis, bar(axis.at(cost.system_us)) + own)


def _capacities(measured: dict[str, Any]) -> str:
    if not measured:
        return ""
    axis = linear([0.0, *(found["rate_per_s"] for found in measured.values())])
    rows = [Row(path, _capacity_cells(found), _capacity_picture(path, found, axis)) for path, found in measured.items()]
    caption = (
        "The highest rate at which every datagram of a try arrived, found by halving; “at least” where the sender "
        "could not keep a higher rate, so that the path may carry more."
    )
    head = ("path", "tries", "sent", "a second")
    return "<h3>Highest rate without loss</h3>" + table(
        caption, head, rows, pictured="datagrams a second", scale=scale(axis, brief)
    )


def _capacity_cells(found: dict[str, Any]) -> tuple[str, ...]:
    return (str(len(found["tries"])), f"{sum(one['sent'] for one in found['tries']):,}", highest(found))


def _capacity_picture(path: str, found: dict[str, Any], axis: Axis) -> str:
    title = f"{path}: {highest(found)} datagrams a second, {len(found['tries'])} tries"
    kind = "open" if found["limited_by"] == "sender" else ""
    return strip(title, axis, bar(axis.at(found["rate_per_s"]), kind) if found["rate_per_s"] else dot(0.0, "bad"))
