"""The timeline of a run as a picture: each datagram a dot by the time it was due and its RTT, losses marked."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.ledger import ANSWERED_BLUE, ANSWERED_GREEN, NOT_SENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.scenario import Record

    Numbers = NDArray[np.float64]

__all__ = ["STYLE", "Timeline"]

WIDTH, HEIGHT, FOOT = 1000, 200, 24  # units of the drawing, stretched to the page; marks of loss are in the foot
HEADROOM = 1.25  # over all but the slowest answers
DOTS = 1500  # of the answered ones; what was lost is never left out
COLOURS = {ANSWERED_BLUE: "var(--blue)", ANSWERED_GREEN: "var(--green)"}

STYLE = """
:root { color-scheme: light dark; --blue: #2563eb; --green: #15803d; --bad: #dc2626; --ink: #111827;
  --paper: #ffffff; --line: #d1d5db; --soft: #4b5563; }
@media (prefers-color-scheme: dark) { :root { --blue: #60a5fa; --green: #4ade80; --bad: #f87171; --ink: #e5e7eb;
  --paper: #111827; --line: #374151; --soft: #9ca3af; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; } h3 { margin-bottom: 0; } p, figcaption { color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td:last-child { min-width: 13rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.fail { color: var(--bad); font-weight: 600; } .pass { color: var(--green); font-weight: 600; }
.control { font-weight: 600; }
figure { margin: 1rem 0; } svg { display: block; width: 100%; height: 12rem; }
svg path { vector-effect: non-scaling-stroke; fill: none; }
.axis { display: flex; justify-content: space-between; font-size: .8rem; color: var(--soft); }
.blue { color: var(--blue); } .green { color: var(--green); } .lost { color: var(--bad); }
@media (max-width: 40rem) { thead { display: none; } tbody, td:first-child, td:last-child { display: block; }
  tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  td { border: 0; padding: 0 .75rem 0 0; }
  td:first-child { font-weight: 600; } td.number { display: inline-block; }
  td.number::before { content: attr(data-is) " "; color: var(--soft); } }
"""


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each datagram was due, in ms since the first, what became of it, its RTT in ms, and when swaps were run."""

    due_ms: list[float]
    rtt_ms: list[float]
    fate: list[int]
    swaps_ms: list[tuple[float, float]]

    @classmethod
    def of(cls, record: Record) -> Timeline | None:
        """The timeline of a run, its answered datagrams thinned out; None where nothing could be counted."""
        account = record.ledger
        if account is None:
            return None
        due = np.concatenate([stream.due_ns for stream in account.streams])
        fate = np.concatenate([stream.fate for stream in account.streams])
        rtt_ms = (np.concatenate([stream.answered_ns for stream in account.streams]) - due) / 1e6
        answered = (fate == ANSWERED_BLUE) | (fate == ANSWERED_GREEN)
        kept = ~answered
        places = np.flatnonzero(answered)
        kept[places[:: max(1, len(places) // DOTS)]] = True
        chosen = np.flatnonzero(kept)
        return cls(
            ((due[chosen] - record.t0_ns) / 1e6).round(3).tolist(),
            np.where(answered[chosen], rtt_ms[chosen], 0).round(3).tolist(),
            fate[chosen].tolist(),
            [((begin - record.t0_ns) / 1e6, (end - record.t0_ns) / 1e6) for begin, end in record.swaps_ns],
        )

    def to_json(self) -> dict[str, Any]:
        """What `Timeline(**...)` takes."""
        return asdict(self)

    def figure(self, name: str, caption: str) -> str:
        """A figure of HTML, for a page with `STYLE`; both texts are plain."""
        due, rtt_ms, fate = (np.array(values) for values in (self.due_ms, self.rtt_ms, self.fate))
        answered = (fate == ANSWERED_BLUE) | (fate == ANSWERED_GREEN)
        usual_ms = float(np.percentile(rtt_ms[answered], 99.5)) if answered.any() else 1.0
        top_ms, span_ms = max(1.0, usual_ms * HEADROOM), float(due.max(initial=0)) or 1.0
        x = due / span_ms * WIDTH
        y = HEIGHT - np.clip(rtt_ms, 0, top_ms) / top_ms * HEIGHT
        bands = "".join(_band(begin / span_ms, end / span_ms) for begin, end in self.swaps_ms)
        dots = "".join(
            _marks("h0", x[fate == which], y[fate == which], colour, "3.2")
            for which, colour in COLOURS.items()
            if (fate == which).any()
        )
        lost_x = np.unique(x[~answered & (fate != NOT_SENT)].round(1))
        losses = _marks("v12", lost_x, np.full(len(lost_x), HEIGHT + 8), "var(--bad)", "1.5") if len(lost_x) else ""
        title = html.escape(name)
        return (
            f'<figure><h3>{title}</h3><div class="axis"><span>{top_ms:.0f} ms</span></div>'
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" preserveAspectRatio="none" role="img" '
            f'aria-label="Timeline of {title}">{bands}<path d="M0 {HEIGHT}H{WIDTH}" stroke="var(--line)"/>'
            f"{dots}{losses}</svg>"
            f'<div class="axis"><span>0 s</span><span>{span_ms / 1000:.1f} s</span></div>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )


def _band(begin: float, end: float) -> str:
    """A swap, from and to a share of the width."""
    left, right = begin * WIDTH, min(end, 1.0) * WIDTH
    return f'<rect x="{left:.1f}" width="{max(1.5, right - left):.1f}" height="{HEIGHT}" fill="var(--line)"/>'


def _marks(stroke: str, x: Numbers, y: Numbers, colour: str, width: str) -> str:
    """One short stroke at each place; as long as nothing, it is a dot."""
    path = "".join(f"M{at_x:.1f} {at_y:.1f}{stroke}" for at_x, at_y in zip(x, y, strict=True))
    return f'<path d="{path}" stroke="{colour}" stroke-width="{width}" stroke-linecap="round"/>'
