"""One self-contained HTML page: the table, and the timeline of a swap, each datagram a dot."""

from __future__ import annotations

import html
import platform
from typing import TYPE_CHECKING

import numpy as np

from harness.expect import CONTROLS
from harness.ledger import ANSWERED_BLUE, ANSWERED_GREEN, NOT_SENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harness.matrix import Outcome
    from harness.scenario import Record

    Numbers = NDArray[np.float64]

__all__ = ["page"]

NS = 1_000_000_000
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


def page(outcomes: Sequence[Outcome]) -> str:
    """The page as text; nothing in it is fetched from anywhere."""
    rows = "".join(_row(outcome) for outcome in outcomes)
    figures = "".join(_figure(outcome.record) for outcome in outcomes if outcome.record.ledger is not None)
    where = f"Linux {html.escape(platform.release())}, {platform.machine()}"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>What a swap loses</title><style>{STYLE}</style><h1>What a swap loses</h1>"
        f"<p>Every datagram of every stream has one fate; {where}. Measured in network namespaces on this machine, "
        "with the kernel's own counters in agreement.</p>"
        '<div class="scroll"><table><thead><tr><th>technique<th class="number">sent<th class="number">lost'
        '<th class="number">blackout, ms<th>verdict</tr></thead>'
        f"<tbody>{rows}</tbody></table></div><h2>Timelines</h2><p>Each dot is a datagram by the time it was due and "
        'its RTT, by the backend that answered: <b class="blue">blue</b> or <b class="green">green</b>. '
        '<b class="lost">Red</b> marks at the foot are those that nobody answered properly; the grey band is the swap '
        f"command, from its start to its end.</p>{figures}</html>"
    )


def _row(outcome: Outcome) -> str:
    record, account = outcome.record, outcome.record.ledger
    sent, lost, blackout = ("-", "-", "-")
    if account:
        sent, lost, blackout = f"{account.to_json()['sent']:,}", f"{account.lost:,}", f"{account.blackout_ms:.1f}"
    good = "pass" if record.verdict == "pass" else "fail"
    said = "loses, as it must" if good == "pass" and outcome.scenario.expect in CONTROLS else record.verdict
    good = "control" if said != record.verdict else good
    return (
        f'<tr><td>{html.escape(outcome.scenario.name)}<td class="number" data-is="sent">{sent}'
        f'<td class="number" data-is="lost">{lost}'
        f'<td class="number" data-is="blackout, ms">{blackout}'
        f'<td><span class="{good}">{said}</span> {html.escape(record.why)}</tr>'
    )


def _figure(record: Record) -> str:
    account = record.ledger
    if account is None:
        return ""
    due = np.concatenate([stream.due_ns for stream in account.streams])
    fate = np.concatenate([stream.fate for stream in account.streams])
    rtt_ms = (np.concatenate([stream.answered_ns for stream in account.streams]) - due) / 1e6
    at_s = (due - record.t0_ns) / NS
    answered = (fate == ANSWERED_BLUE) | (fate == ANSWERED_GREEN)
    usual_ms = float(np.percentile(rtt_ms[answered], 99.5)) if answered.any() else 1.0
    top_ms, span_s = max(1.0, usual_ms * HEADROOM), float(at_s.max()) or 1.0
    x = at_s / span_s * WIDTH
    y = HEIGHT - np.clip(rtt_ms, 0, top_ms) / top_ms * HEIGHT
    bands = "".join(
        _band((begin - record.t0_ns) / NS / span_s, (end - record.t0_ns) / NS / span_s)
        for begin, end in record.swaps_ns
    )
    every = max(1, int(answered.sum()) // DOTS)
    dots = "".join(
        _marks("h0", x[places], y[places], colour, "3.2")
        for which, colour in COLOURS.items()
        if len(places := np.flatnonzero(fate == which)[::every])
    )
    lost_x = np.unique(x[~answered & (fate != NOT_SENT)].round(1))
    losses = _marks("v12", lost_x, np.full(len(lost_x), HEIGHT + 8), "var(--bad)", "1.5") if len(lost_x) else ""
    name = html.escape(record.scenario.name)
    return (
        f'<figure><h3>{name}</h3><div class="axis"><span>{top_ms:.0f} ms</span></div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" preserveAspectRatio="none" role="img" '
        f'aria-label="Timeline of {name}">{bands}<path d="M0 {HEIGHT}H{WIDTH}" stroke="var(--line)"/>'
        f"{dots}{losses}</svg>"
        f'<div class="axis"><span>0 s</span><span>{span_s:.1f} s</span></div>'
        f"<figcaption>{account.scheduled:,} datagrams: {html.escape(record.why)}</figcaption></figure>"
    )


def _band(begin: float, end: float) -> str:
    """A swap, from and to a share of the width."""
    left, right = begin * WIDTH, min(end, 1.0) * WIDTH
    return f'<rect x="{left:.1f}" width="{max(1.5, right - left):.1f}" height="{HEIGHT}" fill="var(--line)"/>'


def _marks(stroke: str, x: Numbers, y: Numbers, colour: str, width: str) -> str:
    """One short stroke at each place; as long as nothing, it is a dot."""
    path = "".join(f"M{at_x:.1f} {at_y:.1f}{stroke}" for at_x, at_y in zip(x, y, strict=True))
    return f'<path d="{path}" stroke="{colour}" stroke-width="{width}" stroke-linecap="round"/>'
