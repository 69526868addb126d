"""One self-contained HTML page: the table, and the timeline of a swap, each datagram a dot."""

from __future__ import annotations

import html
import platform
from typing import TYPE_CHECKING

from harness.expect import CONTROLS
from harness.page import whole
from harness.timeline import LEGEND, Timeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.matrix import Outcome
    from harness.scenario import Record

__all__ = ["page"]


def page(outcomes: Sequence[Outcome]) -> str:
    """The page as text; nothing in it is fetched from anywhere."""
    rows = "".join(_row(outcome) for outcome in outcomes)
    figures = "".join(_figure(outcome.record) for outcome in outcomes)
    where = f"Linux {html.escape(platform.release())}, {platform.machine()}"
    return whole(
        "What a swap loses",
        "<h1>What a swap loses</h1>"
        f"<p>Every datagram of every stream has one fate; {where}. Measured in network namespaces on this machine, "
        "with the kernel's own counters in agreement.</p>"
        '<table class="outcomes"><thead><tr><th>technique<th class="number">sent<th class="number">sent/s'
        '<th class="number">lost'
        '<th class="number">blackout, ms<th>verdict</tr></thead>'
        f"<tbody>{rows}</tbody></table><h2>Timelines</h2><p>{LEGEND} The grey band is the swap command, from its start "
        f"to its end.</p>{figures}",
    )


def _row(outcome: Outcome) -> str:
    record, account = outcome.record, outcome.record.ledger
    sent, rate, lost, blackout = ("-", "-", "-", "-")
    if account:
        sent, rate = f"{account.to_json()['sent']:,}", f"{account.reached_per_s:,.0f}"
        lost, blackout = f"{account.lost:,}", f"{account.blackout_ms:.1f}"
    good = "pass" if record.verdict == "pass" else "fail"
    said = "loses, as it must" if good == "pass" and outcome.scenario.expect in CONTROLS else record.verdict
    good = "control" if said != record.verdict else good
    return (
        f'<tr><th scope="row">{html.escape(outcome.scenario.name)}<td class="number" data-is="sent">{sent}'
        f'<td class="number" data-is="sent/s">{rate}'
        f'<td class="number" data-is="lost">{lost}'
        f'<td class="number" data-is="blackout, ms">{blackout}'
        f'<td><span class="{good}">{said}</span> {html.escape(record.why)}</tr>'
    )


def _figure(record: Record) -> str:
    timeline, account = Timeline.of(record), record.ledger
    if timeline is None or account is None:
        return ""
    return timeline.figure(record.scenario.name, f"{account.scheduled:,} datagrams: {record.why}")
