"""One self-contained HTML page: the table, and the timeline of a swap, each datagram a dot."""

from __future__ import annotations

import html
import platform
from typing import TYPE_CHECKING

import numpy as np

from harness.expect import CONTROLS
from harness.ledger import ANSWERED_BLUE, ANSWERED_GREEN, LOST_DOWN, LOST_UP, MISADDRESSED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.matrix import Outcome
    from harness.scenario import Record

__all__ = ["page"]

NS = 1_000_000_000
WIDTH, HEIGHT, MARGIN = 960, 220, 40
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
figure { margin: 1rem 0; } svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
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
        "its RTT, coloured by the backend that answered; red marks at the foot are lost ones; the grey band is the "
        f"swap command.</p>{figures}</html>"
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
        f'<tr><td>{html.escape(outcome.scenario.name)}<td class="number">{sent}<td class="number">{lost}'
        f'<td class="number">{blackout}<td><span class="{good}">{said}</span> {html.escape(record.why)}</tr>'
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
    top = max(1.0, float(np.percentile(rtt_ms[answered], 99.5)) if answered.any() else 1.0)
    span = float(at_s.max()) or 1.0

    def x(second: float) -> float:
        return MARGIN + second / span * (WIDTH - MARGIN - 10)

    def y(milliseconds: float) -> float:
        return HEIGHT - MARGIN - min(max(milliseconds, 0), top) / top * (HEIGHT - MARGIN - 10)

    shapes = []
    for begin, end in record.swaps_ns:
        left, right = x((begin - record.t0_ns) / NS), x((end - record.t0_ns) / NS)
        shapes.append(
            f'<rect x="{left:.1f}" y="10" width="{max(1.5, min(right, WIDTH) - left):.1f}" '
            f'height="{HEIGHT - MARGIN - 10}" fill="var(--line)"/>'
        )
    places = np.flatnonzero(answered)
    for place in places[:: max(1, len(places) // DOTS)]:
        centre = f'cx="{x(at_s[place]):.1f}" cy="{y(rtt_ms[place]):.1f}"'
        shapes.append(f'<circle {centre} r="1.6" fill="{COLOURS[int(fate[place])]}"/>')
    lost = np.flatnonzero(np.isin(fate, (LOST_UP, LOST_DOWN, MISADDRESSED)))
    marks = sorted({round(x(at_s[place]), 1) for place in lost})
    path = "".join(f"M{mark} {HEIGHT - MARGIN + 2}v10" for mark in marks)
    shapes.append(f'<path d="{path}" stroke="var(--bad)"/>' if marks else "")
    axis = (
        f'<text x="4" y="20">{top:.0f} ms</text><text x="{MARGIN}" y="{HEIGHT - 8}">0 s</text>'
        f'<text x="{WIDTH - 40}" y="{HEIGHT - 8}">{span:.1f} s</text>'
    )
    name = html.escape(record.scenario.name)
    return (
        f'<figure><h3>{name}</h3><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Timeline of {name}">'
        f"{''.join(shapes)}{axis}</svg><figcaption>{account.scheduled:,} datagrams: {html.escape(record.why)}"
        "</figcaption></figure>"
    )
