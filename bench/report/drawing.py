"""Pictures as inline SVG, as wide as their place: widths are shares of it, so nothing is scaled and text stays text.

A strip is a picture of one row of a table; the rows of a table share an axis.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.report.axis import Axis

__all__ = ["bar", "dot", "drawing", "interval", "percent", "ridge", "scale", "strip"]

STRIP_PX: Final = 28
MIDDLE: Final = STRIP_PX / 2
RIDGE: Final = 1000, 100  # units of a curve, which alone is stretched to its place


def drawing(title: str, marks: str, *, height_px: float, kind: str, text: str = "") -> str:
    """A picture with its title, and what it shows in a sentence where the title does not say it."""
    described = f"<desc>{html.escape(text)}</desc>" if text else ""
    return (
        f'<svg class="{kind}" height="{height_px:g}" role="img"><title>{html.escape(title)}</title>{described}'
        f"{marks}</svg>"
    )


def strip(title: str, axis: Axis, marks: str, *, line_at: float | None = None) -> str:
    """One row's picture over the axis' lines; the line that values are compared with is drawn stronger."""
    lines = "".join(_line("grid", axis.at(tick)) for tick in axis.ticks)
    strong = "" if line_at is None else _line("base", axis.at(line_at))
    return drawing(title, lines + strong + marks, height_px=STRIP_PX, kind="strip")


def scale(axis: Axis, text: Callable[[float], str]) -> str:
    """The axis' numbers, for the foot of a table; a table says them already, so they are hidden from a reader."""
    names = "".join(
        f'<text x="{percent(axis.at(tick))}" y="14" text-anchor="middle">{text(tick)}</text>' for tick in axis.ticks
    )
    return f'<svg class="scale" height="18" aria-hidden="true">{names}</svg>'


def bar(share: float, kind: str = "") -> str:
    """From the axis' beginning to a share of the width."""
    return f'<rect class="mark {kind}" x="0" y="{MIDDLE - 6:g}" width="{percent(share)}" height="12"/>'


def dot(share: float, kind: str = "") -> str:
    """One value."""
    return f'<circle class="mark {kind}" cx="{percent(share)}" cy="{MIDDLE:g}" r="4"/>'


def interval(low: float, share: float, high: float) -> str:
    """One value and where it is likely to be."""
    return (
        f'<line class="mark likely" x1="{percent(low)}" x2="{percent(high)}" y1="{MIDDLE:g}" y2="{MIDDLE:g}"/>'
        f"{dot(share)}"
    )


def ridge(points: Iterable[tuple[float, float]], marked: Iterable[float]) -> str:
    """A curve of heights from 0 to 1 over the width, and marks on its foot: the tallest first, each shorter."""
    width, height = RIDGE
    path = "".join(f"L{x * width:.0f} {height - y * (height - 4):.0f}" for x, y in points)
    first = path[1 : path.index(" ")]
    curve = (
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" width="100%" height="{STRIP_PX}">'
        f'<path class="mark ridge" d="M{first} {height}{path}V{height}Z"/></svg>'
    )
    ticks = "".join(
        f'<line class="mark quantile" x1="{percent(x)}" x2="{percent(x)}" y1="{STRIP_PX}" y2="{8 * number}"/>'
        for number, x in enumerate(marked)
    )
    return curve + ticks


def percent(share: float) -> str:
    """A share of the width as SVG says it."""
    return f"{100 * share:.2f}%"


def _line(kind: str, share: float) -> str:
    return f'<line class="{kind}" x1="{percent(share)}" x2="{percent(share)}" y1="0" y2="100%"/>'
