"""How cost and loss grow with flows, ports, payload, service time and rate: a picture of lines for each sweep."""

from __future__ import annotations

import html
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from bench.report.axis import Axis, linear, logarithmic
from bench.report.drawing import drawing, percent
from bench.report.tables import plain
from bench.report.words import bound, brief, interval, least_most, rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.parts.series import Series
    from bench.report.summaries import Found

__all__ = ["MARKERS", "MEASURES", "Measure", "Point", "section"]

HEIGHT_PX: Final = 240
TOP_PX, FOOT_PX = 16, 212  # of the room for points
LEFT, WIDTH = 0.09, 0.86  # of the picture's width, the same

# One shape for each place in the list of paths, drawn once and used by name; colour alone does not tell them apart.
SHAPES: Final = (
    '<circle r="4.5"/>',
    '<rect x="-4" y="-4" width="8" height="8"/>',
    '<path d="M0-5.5L5 4H-5Z"/>',
    '<path d="M0-5.5L5.5 0 0 5.5-5.5 0Z"/>',
    '<path d="M0 5.5L5-4H-5Z"/>',
    '<path d="M-5-1.5h3.5V-5h3v3.5H5v3H1.5V5h-3V1.5H-5Z"/>',
)
MARKERS: Final = (
    '<svg class="markers" width="0" height="0" aria-hidden="true"><defs>'
    + "".join(f'<g id="marker-{number}">{shape}</g>' for number, shape in enumerate(SHAPES))
    + "</defs></svg>"
)


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a place of a sweep, between which it is likely or was seen to lie, and what it rests on."""

    x: float
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Measure:
    """One of the things that a sweep's points hold: how to read, to scale and to write it."""

    title: str
    text: str
    read: Callable[[Mapping[str, Any]], Point | None]
    axis: Callable[[list[float]], Axis]
    cell: Callable[[Point], tuple[str, str, str]]  # the value, and what it rests on


def _ratio(point: Mapping[str, Any]) -> Point | None:
    if "ratio" not in point:
        return None
    return Point(point["x"], point["ratio"], point["low"], point["high"], point["n"])


def _first(point: Mapping[str, Any]) -> Point | None:
    return _ratio({"x": point["x"], **point["first"]}) if "first" in point else None


def _commit(point: Mapping[str, Any]) -> Point | None:
    taken_ms = point.get("commit_ms")
    return Point(point["x"], median(taken_ms), min(taken_ms), max(taken_ms), len(taken_ms)) if taken_ms else None


def _lost(point: Mapping[str, Any]) -> Point | None:
    if not point.get("sent") or point.get("verdict") == "inconclusive":
        return None
    return Point(point["x"], point["lost"], point["lost"], point["lost"], point["sent"])


def _ratio_axis(values: list[float]) -> Axis:
    return linear([1.0, *values])


def _loss_axis(values: list[float]) -> Axis:
    return logarithmic(values, with_zero=True)


def _ratio_cell(point: Point) -> tuple[str, str, str]:
    return f"{point.value:.3f}", interval(point.low, point.high), f"n = {point.n:,}"


def _commit_cell(point: Point) -> tuple[str, str, str]:
    return rounded(point.value), least_most((point.low, point.high)), f"n = {point.n:,}"


def _lost_cell(point: Point) -> tuple[str, str, str]:
    lost = round(point.value)
    return f"{lost:,}", f"of {point.n:,}", "" if lost else bound(point.n)


INTERVAL: Final = "Paired ratio to the direct path with its 95 % interval; n is turns."
MEASURES: Final = (
    Measure("round trip, direct = 1", INTERVAL, _ratio, _ratio_axis, _ratio_cell),
    Measure("first datagram of a new flow, direct = 1", INTERVAL, _first, _ratio_axis, _ratio_cell),
    Measure("commit of a swap, ms", "The median of n swaps (fastest – slowest).", _commit, logarithmic, _commit_cell),
    Measure(
        "datagrams lost across a swap",
        "Logarithmic, with 0 apart; the bound of a zero is 3/N, at 95 %.",
        _lost,
        _loss_axis,
        _lost_cell,
    ),
)


def section(found: Found) -> str:
    """A figure for everything that each sweep measured; "" where nothing was swept."""
    kinds = dict.fromkeys(one.kind for one in found.sweeps)
    names = list(dict.fromkeys(one.path for one in found.sweeps))
    figures = "".join(
        _figure(measure, [one for one in found.sweeps if one.kind == kind], names)
        for kind in kinds
        for measure in MEASURES
    )
    if not figures:
        return ""
    return (
        '<section id="growth"><h2>As it grows</h2><p>A path has the same colour and shape in every picture.</p>'
        f'{MARKERS}<div class="pair">{figures}</div></section>'
    )


def _figure(measure: Measure, sweep: list[Series], names: list[str]) -> str:
    """A sweep's picture and numbers of one measure, "" where it has none."""
    read = {one.path: [found for point in one.points if (found := measure.read(point))] for one in sweep}
    paths = {path: points for path, points in read.items() if points}
    if not paths:
        return ""
    title = f"{sweep[0].kind.capitalize()}: {measure.title}"
    keys = "".join(f"<li>{_key(names.index(path))}{html.escape(path)}" for path in paths)
    return (
        f'<figure class="growth"><h3>{html.escape(title)}</h3><ul class="keys">{keys}</ul>'
        f"{_picture(title, sweep[0].unit, measure, paths, names)}"
        f"<figcaption>{html.escape(' '.join([measure.text, *_failures(sweep)]))}</figcaption>"
        f"{_numbers(sweep[0].unit, measure, paths)}</figure>"
    )


def _failures(sweep: list[Series]) -> list[str]:
    """Where nothing could be measured, and why."""
    return [
        f"Not measured: {one.path} at {brief(point['x'])} {one.unit} ({point['failed'].partition(chr(10))[0]})."
        for one in sweep
        for point in one.points
        if point.get("failed")
    ]


def _key(place: int) -> str:
    return f'<svg width="16" height="14" aria-hidden="true">{_marker(place, "8", 7)}</svg>'


def _picture(title: str, unit: str, measure: Measure, paths: dict[str, list[Point]], names: list[str]) -> str:
    points = [point for found in paths.values() for point in found]
    x_values = sorted({point.x for point in points})
    across = linear(x_values) if 0 in x_values else logarithmic(x_values)
    up = measure.axis([value for point in points for value in (point.low, point.value, point.high)])
    grid = "".join(_grid(_height(up, tick), tick) for tick in up.ticks)
    feet = "".join(
        f'<text x="{_across(across, x)}" y="{HEIGHT_PX - 10}" text-anchor="middle">{brief(x)}</text>' for x in x_values
    )
    lines = "".join(_line(found, across, up, names.index(path)) for path, found in paths.items())
    text = f"By {unit}, from {brief(x_values[0])} to {brief(x_values[-1])}; {', '.join(paths)}."
    return drawing(title, grid + feet + lines, height_px=HEIGHT_PX, kind="lines", text=text)


def _line(points: list[Point], across: Axis, up: Axis, place: int) -> str:
    """The points of one path, joined, each with its interval."""
    at = [(_across(across, point.x), _height(up, point.value)) for point in points]
    joined = "".join(
        f'<line x1="{x}" y1="{y:.1f}" x2="{next_x}" y2="{next_y:.1f}"/>' for (x, y), (next_x, next_y) in pairwise(at)
    )
    likely = "".join(
        f'<line class="likely" x1="{x}" x2="{x}" y1="{_height(up, point.low):.1f}" y2="{_height(up, point.high):.1f}"/>'
        for (x, _), point in zip(at, points, strict=True)
    )
    markers = "".join(_marker(place, x, y) for x, y in at)
    return f'<g class="series-{place % len(SHAPES)}">{joined}{likely}{markers}</g>'


def _marker(place: int, x: str, y: float) -> str:
    number = place % len(SHAPES)
    return f'<use class="mark series-{number}" href="#marker-{number}" x="{x}" y="{y:.1f}"/>'


def _grid(y: float, tick: float) -> str:
    line = f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text x="0" y="{y - 3:.1f}">{brief(tick)}</text>'


def _across(axis: Axis, x: float) -> str:
    return percent(LEFT + WIDTH * axis.at(x))


def _height(axis: Axis, value: float) -> float:
    return FOOT_PX - (FOOT_PX - TOP_PX) * axis.at(value)


def _numbers(unit: str, measure: Measure, paths: dict[str, list[Point]]) -> str:
    """The table beside the picture: a row for each place, a column for each path."""
    rows = [
        (f"{x:,}", [_cell(measure, found, x) for found in paths.values()])
        for x in sorted({point.x for found in paths.values() for point in found})
    ]
    return plain((unit, *paths), rows)


def _cell(measure: Measure, points: list[Point], x: float) -> tuple[str, str, str]:
    return next((measure.cell(point) for point in points if point.x == x), ("–", "", ""))
