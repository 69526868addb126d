"""What a bench run found, for people: one page of HTML, and one table of Markdown for a pull request."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from harness.timeline import STYLE, Timeline

__all__ = ["LOST", "markdown", "page"]

QUANTILES = (5, 25, 50, 75, 95)
LOST = ("lost_up", "lost_down", "misaddressed", "misdelivered", "corrupted", "receiver_dropped")
PICTURES = """
.range { position: relative; height: 1.6rem; min-width: 12rem; }
.range i { position: absolute; top: .75rem; height: 2px; background: var(--soft); }
.range b { position: absolute; top: .35rem; height: .9rem; background: var(--blue); opacity: .35; }
.range u { position: absolute; top: .2rem; height: 1.2rem; width: 2px; background: var(--blue); }
"""


def markdown(document: dict[str, Any]) -> str:
    """Two tables: what a swap loses, and what a hop costs."""
    lines = ["| technique | lost across a swap | blackout, ms |", "|---|---|---|"]
    lines += [f"| {s['technique']} | {_lost(s)} | {_blackout(s)} |" for s in document["swaps"]]
    lines += ["", "| path | round trip against direct | 95 % interval |", "|---|---|---|"]
    lines += [
        f"| {c['name']} | {c['ratio']:.3f} | {c['low']:.3f} - {c['high']:.3f} (n = {c['turns']}) |"
        for c in document["comparisons"]["two cores"]
    ]
    if document["noisy"]:
        lines += ["", "The machine was busy: the round trips prove nothing."]
    lines += [f"\nWithout {name}: {why.splitlines()[0]}" for name, why in document["missing"].items()]
    return "\n".join(lines) + "\n"


def page(document: dict[str, Any]) -> str:
    """The page as text; nothing in it is fetched from anywhere."""
    environment = document["environment"]
    swaps = "".join(
        f'<tr><td>{html.escape(s["technique"])}<td class="number" data-is="sent">{s["ledger"].get("sent", 0):,}'
        f'<td class="number" data-is="lost">{_lost(s)}<td class="number" data-is="blackout, ms">{_blackout(s)}'
        f"<td>{html.escape(s['why'])}</tr>"
        for s in document["swaps"]
    )
    timelines = "".join(
        Timeline(**s["timeline"]).figure(s["technique"], f"{s['ledger'].get('sent', 0):,} datagrams: {s['why']}")
        for s in document["swaps"]
        if s["timeline"]
    )
    missing = "".join(
        f"<p><b>{html.escape(name)}</b> is missing: {html.escape(why)}</p>" for name, why in document["missing"].items()
    )
    noisy = "<p><b>The machine was busy: the round trips prove nothing.</b></p>" if document["noisy"] else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>A swap and a hop</title><style>{STYLE}{PICTURES}</style><h1>What a swap loses, what a hop costs</h1>"
        f"<p>Linux {html.escape(environment['kernel'])}, {html.escape(environment['cpu'])}, {environment['cpus']} "
        f"CPUs, seed {document['seed']}, load {environment['load_1min']:.1f} before. All paths on the same topology, "
        f"with the same backends and streams.</p>{missing}"
        "<h2>What a swap loses</h2><p>2,000 datagrams a second, half of them in long flows and half each in a flow of "
        "its own, 20 ms of service time; the old backend is stopped 0.3 s after the swap.</p>"
        '<table><thead><tr><th>technique<th class="number">sent<th class="number">lost<th class="number">blackout, ms'
        f"<th>verdict</tr></thead><tbody>{swaps}</tbody></table>"
        f"<h2>What a hop costs</h2>{noisy}<p>The median round trip of a ping-pong against the direct path, all paths "
        "alive at once and asked in turns; the bar is the 95 % interval of the ratio.</p>"
        f"{_costs(document['comparisons']['two cores'])}"
        "<h2>How round trips spread</h2><p>The medians of all turns: the bar holds the middle half, the line nine of "
        f"ten, the mark is the median.</p>{_spreads(document['rtts_us']['two cores'])}"
        "<h2>Timelines</h2><p>Each dot is a datagram by the time it was due and its RTT, by the backend that answered: "
        '<b class="blue">blue</b> or <b class="green">green</b>. <b class="lost">Red</b> marks at the foot are those '
        f"that nobody answered properly; the grey band is the switch.</p>{timelines}</html>"
    )


def _lost(swap: dict[str, Any]) -> str:
    ledger = swap["ledger"]
    if not ledger:
        return "-"
    lost = sum(ledger[fate] for fate in LOST)
    return f"{lost:,}" if lost else f"0 (below {3 / ledger['sent']:.1e} at 95 %)"


def _blackout(swap: dict[str, Any]) -> str:
    return "-" if swap["blackout_ms"] is None else f"{swap['blackout_ms']:.1f}"


def _costs(comparisons: list[dict[str, Any]]) -> str:
    top = max(1.1, *(c["high"] for c in comparisons)) - 1
    rows = "".join(
        f'<tr><td>{html.escape(c["name"])}<td class="number" data-is="ratio">{c["ratio"]:.3f}'
        f'<td class="number" data-is="n">{c["turns"]:,}'
        f'<td><div class="range">{_bar("b", (c["low"] - 1) / top, (c["high"] - 1) / top)}'
        f"{_bar('u', (c['ratio'] - 1) / top)}</div></tr>"
        for c in comparisons
    )
    head = f'<tr><th>path<th class="number">ratio<th class="number">turns<th>1.0 to {1 + top:.2f}</tr>'
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _spreads(rtts_us: dict[str, list[float]]) -> str:
    quantiles = {name: np.percentile(values, QUANTILES) for name, values in rtts_us.items()}
    top = max(float(found[-1]) for found in quantiles.values())
    rows = "".join(
        f'<tr><td>{html.escape(name)}<td class="number" data-is="median, us">{q[2]:.1f}'
        f'<td><div class="range">{_bar("i", q[0] / top, q[4] / top)}{_bar("b", q[1] / top, q[3] / top)}'
        f"{_bar('u', q[2] / top)}</div></tr>"
        for name, q in quantiles.items()
    )
    head = f'<tr><th>path<th class="number">median, us<th>0 to {top:.0f} us</tr>'
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _bar(kind: str, begin: float, end: float | None = None) -> str:
    left = min(max(begin, 0.0), 1.0) * 100
    width = f";width:{max(0.3, (min(max(end, 0.0), 1.0) * 100) - left):.2f}%" if end is not None else ""
    return f'<{kind} style="left:{left:.2f}%{width}"></{kind}>'
