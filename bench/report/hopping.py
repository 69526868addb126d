"""What a hop costs: round trips against the direct path, as paired ratios and as distributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.noise import COMPARED
from bench.report.axis import Axis, linear, logarithmic
from bench.report.drawing import interval, ridge, scale, strip
from bench.report.tables import Row, table
from bench.report.words import brief, least_most, rounded
from bench.report.words import interval as from_to
from harness.histogram import GROWTH, UNIT_US
from harness.pingpong import DIRECT, DIRECT_AGAIN

if TYPE_CHECKING:
    from bench.report.summaries import Found, Hop
    from harness.histogram import Histogram

__all__ = ["KINDS", "Kind", "glance", "section"]

MARKED: Final = (0.5, 0.99, 0.999)
COLUMNS: Final = 200  # of a distribution's curve
WITHOUT: Final = 0.0005  # of all exchanges at either end: outside the axis of distributions


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of time that is measured side by side on all routes."""

    name: str
    title: str
    text: str
    what: str = "round trips"
    per_second: bool = False


KINDS: Final = (
    Kind(
        COMPARED,
        "Round trip",
        "Client and backend on a core each, as two machines would be; waking the other core is most of a round trip.",
    ),
    Kind("one core", "Round trip on one core", "Client and backend share a core: only what the path costs is left."),
    Kind(
        "first datagram",
        "First datagram of a new flow",
        "A fresh socket for each exchange: what conntrack or a proxy does once for every flow.",
        what="first exchanges",
    ),
    Kind(
        "tcp connect",
        "TCP: a connection with one request",
        "From connecting to the answer, one connection after the other.",
        what="connections",
        per_second=True,
    ),
    Kind(
        "tcp request",
        "TCP: a request on an open connection",
        "One request after the other.",
        what="requests",
        per_second=True,
    ),
)


def glance(found: Found, *, busy: bool) -> str:
    """What a hop costs on each path, at a glance; "" where no round trip was measured."""
    hops = [hop for hop in found.hops.get(COMPARED, []) if hop.name not in (DIRECT.name, DIRECT_AGAIN.name)]
    if not hops:
        return ""
    axis = _axis(hops)
    rows = [Row(hop.name, (f"{hop.summary.ratio:.2f} ×",), _forest(hop, axis)) for hop in hops]
    return table(
        _answer(hops, busy=busy),
        ("path", "to direct"),
        rows,
        pictured="round trip, direct = 1",
        scale=scale(axis, "{:g}".format),
        remark=f"Medians of turns paired with direct ones; of each: {least_most([hop.summary.turns for hop in hops])}.",
    )


def section(found: Found) -> str:
    """Every kind of time that was measured; "" where there is none."""
    parts = "".join(_kind(kind, found.hops[kind.name]) for kind in KINDS if kind.name in found.hops)
    if not parts:
        return ""
    return (
        '<section id="hop"><h2>What a hop costs</h2><p>All paths are alive at once and asked in turns, in an order '
        "that is shuffled for every turn. The ratio is the median over all turns of a path's median to the direct "
        "path's of the same turn, with its bootstrap interval (95 %); “direct, again” is a second direct path, so what "
        f"it differs by is noise.</p>{parts}</section>"
    )


def _answer(hops: list[Hop], *, busy: bool) -> str:
    """The table in a sentence."""
    if busy:
        return "No verdict on latency: the machine was busy."
    least, most = hops[0], hops[-1]
    return (
        f"A round trip takes from {least.summary.ratio:.2f} ({least.name}) to {most.summary.ratio:.2f} ({most.name}) "
        "times the direct one."
    )


def _kind(kind: Kind, found: list[Hop]) -> str:
    head = ("path", "turns", "p50 adds, µs", "ratio", "95 % interval", *(["a second"] if kind.per_second else []))
    axis = _axis(found)
    compared = [Row(hop.name, _cells(hop, kind), _forest(hop, axis)) for hop in found]
    caption = f"Against the direct path. {kind.text}"
    caption += " A second: 1 / p50, one at a time." if kind.per_second else ""
    return (
        f"<h3>{kind.title}</h3>"
        + table(caption, head, compared, pictured="ratio to direct", scale=scale(axis, "{:g}".format))
        + _distributions(kind, found)
    )


def _cells(hop: Hop, kind: Kind) -> tuple[str, ...]:
    one = hop.summary
    rate = [f"{one.per_s:,.0f}"] if kind.per_second else []
    if hop.name == DIRECT.name:
        return (f"{one.turns:,}", "–", "1", "–", *rate)
    return (f"{one.turns:,}", f"{one.adds_us:+.1f}", f"{one.ratio:.3f}", from_to(one.low, one.high), *rate)


def _axis(found: list[Hop]) -> Axis:
    return linear([1.0, *(bound for hop in found for bound in (hop.summary.low, hop.summary.high))])


def _forest(hop: Hop, axis: Axis) -> str:
    one = hop.summary
    title = f"{hop.name}: {one.ratio:.3f} ({from_to(one.low, one.high)}), n = {one.turns:,} turns"
    return strip(title, axis, interval(axis.at(one.low), axis.at(one.ratio), axis.at(one.high)), line_at=1.0)


def _distributions(kind: Kind, found: list[Hop]) -> str:
    ends = [hop.times.quantile_us(share) for hop in found for share in (WITHOUT, 1 - WITHOUT)]
    axis = logarithmic(ends)
    rows = [
        Row(
            hop.name,
            (f"{hop.summary.n:,}", *(rounded(hop.times.quantile_us(share)) for share in MARKED)),
            _spread(hop, axis),
        )
        for hop in found
    ]
    caption = "Every exchange by how long it took, on a logarithmic axis; marks, from tall to short: p50, p99, p99.9."
    head = ("path", kind.what, "p50, µs", "p99, µs", "p99.9, µs")
    return table(caption, head, rows, pictured="microseconds", scale=scale(axis, brief))


def _spread(hop: Hop, axis: Axis) -> str:
    marked_us = [hop.times.quantile_us(share) for share in MARKED]
    names = ", ".join(f"p{100 * share:g} {rounded(us)} µs" for share, us in zip(MARKED, marked_us, strict=True))
    curve = ridge(_curve(hop.times, axis), map(axis.at, marked_us))
    return strip(f"{hop.name}: {names}, n = {hop.summary.n:,}", axis, curve)


def _curve(times: Histogram, axis: Axis) -> list[tuple[float, float]]:
    """The share of the axis and the height of each column, the highest 1."""
    heights = [0.0] * (COLUMNS + 1)
    for number, count in times.counts.items():
        heights[round(axis.at(UNIT_US * GROWTH ** (number + 0.5)) * COLUMNS)] += count
    top = max(heights)
    return [(place / COLUMNS, height / top) for place, height in enumerate(heights)]
