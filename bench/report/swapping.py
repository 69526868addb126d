"""What a swap loses: the first answer of the page, the table behind it, and the timeline of one swap of each."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from bench.report.axis import Axis, linear, logarithmic
from bench.report.drawing import bar, dot, scale, strip
from bench.report.tables import Row, table
from bench.report.words import bound, brief, least_most, lost_of, rounded, span
from harness.timeline import LEGEND, Timeline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.report.summaries import Found, Swaps

__all__ = ["glance", "section"]

TCP_WORDS: Final = {
    "broken": "broken",
    "moved": "moved to the other backend",
    "on_old_set": "opened on the old backend after the swap",
    "unanswered": "never answered",
}
FATES: Final = {
    "lost_up": "never reached a backend",
    "lost_down": "answers lost",
    "misaddressed": "answered from a wrong address",
    "misdelivered": "answered to another flow",
    "corrupted": "corrupted",
    "receiver_dropped": "found the client's buffer full",
}


def glance(found: Found) -> str:
    """What a swap loses under each technique, at a glance; "" where no swap was measured."""
    counted = [one for one in found.swaps if one.lost_each and not one.is_tcp]
    if not counted:
        return ""
    axis = _axis(counted)
    rows = [Row(one.technique, (rounded(one.lost_a_swap),), _picture(one, axis)) for one in counted]
    return table(
        _answer(counted),
        ("technique", "lost"),
        rows,
        pictured="datagrams lost in a swap",
        scale=scale(axis, brief),
        remark=f"The mean; swaps of each: {least_most([len(one.lost_each) for one in counted])}. Logarithmic, 0 apart.",
    )


def section(found: Found) -> str:
    """Everything that was counted across swaps; "" where none was measured."""
    if not found.swaps:
        return ""
    datagrams = [one for one in found.swaps if not one.is_tcp]
    connections = [one for one in found.swaps if one.is_tcp]
    return (
        f'<section id="swap"><h2>What a swap loses</h2>{_datagrams(datagrams)}{_connections(connections)}'
        f"{_timelines(datagrams)}</section>"
    )


def _datagrams(found: list[Swaps]) -> str:
    if not found:
        return ""
    axis = _axis(found)
    rows = [
        Row(
            one.technique,
            (str(len(one.lost_each)), lost_of(one.lost, one.sent), span(one.blackouts_ms)),
            _picture(one, axis) if one.lost_each else "",
            note=_note(one, {FATES[fate]: number for fate, number in one.fates.items()}),
        )
        for one in found
    ]
    caption = (
        f"{_conditions(found[0].scenario)} Lost: the sum over all swaps, the bound of a zero is 3/N at 95 %; in the "
        "picture the mean of a swap, on a logarithmic axis with 0 apart. Blackout: the longest time without an "
        "answered datagram beyond the schedule's own interval, median of all swaps (least – most)."
    )
    head = ("technique", "swaps", "lost", "blackout, ms")
    return table(caption, head, rows, pictured="datagrams lost in a swap", scale=scale(axis, brief))


def _connections(found: list[Swaps]) -> str:
    if not found:
        return ""
    axis = linear([0.0, 100.0])
    rows = [
        Row(
            one.technique,
            (str(len(one.lost_each)), lost_of(one.faulty, one.tcp["opened"])),
            _share_picture(one, axis) if one.tcp["opened"] else "",
            note=_note(one, {words: one.tcp[fault] for fault, words in TCP_WORDS.items()}),
        )
        for one in sorted(found, key=attrgetter("faulty"))
    ]
    caption = "TCP: connections that are open across a swap or opened meanwhile, and what became of them."
    head = ("technique", "swaps", "broken")
    return table(caption, head, rows, pictured="broken, % of those opened", scale=scale(axis, brief))


def _answer(counted: list[Swaps]) -> str:
    """The table in a sentence."""
    without, worst = [one for one in counted if not one.lost], counted[-1]
    said = f"{len(without)} of {len(counted)} techniques lost nothing"
    said += f" ({bound(min(one.sent for one in without))} datagrams, 95 %)" if without else ""
    most = f"; {worst.technique} lost most" if worst.lost else ""
    return f"{said}{most}."


def _axis(found: list[Swaps]) -> Axis:
    return logarithmic((one.lost_a_swap for one in found if one.lost_each), with_zero=True)


def _picture(one: Swaps, axis: Axis) -> str:
    title = f"{one.technique}: {rounded(one.lost_a_swap)} lost in a swap, {lost_of(one.lost, one.sent)}"
    return strip(title, axis, bar(axis.at(one.lost_a_swap), "bad") if one.lost else dot(0.0, "zero"))


def _note(one: Swaps, faults: Mapping[str, int]) -> str:
    """What became of the lost ones, and the rounds that prove nothing."""
    said = [f"{number:,} {what}" for what, number in faults.items() if number]
    said += [f"a swap proves nothing: {why}" for why in dict.fromkeys(one.unproved)]
    return "; ".join(said)


def _conditions(scenario: dict[str, Any]) -> str:
    """How the datagrams were sent; the same for all techniques."""
    return (
        f"{scenario['rate_per_s']:,} datagrams a second from each side, {scenario['service_ms']:g} ms of service time; "
        f"the old backend is stopped {scenario['stop_old_after_s']:g} s after the swap."
    )


def _share_picture(one: Swaps, axis: Axis) -> str:
    number, opened = one.faulty, one.tcp["opened"]
    marks = bar(axis.at(100 * number / opened), "bad") if number else dot(0.0, "zero")
    return strip(f"{one.technique}: {lost_of(number, opened)} connections broken", axis, marks)


def _timelines(found: list[Swaps]) -> str:
    figures = "".join(
        Timeline(**one.timeline).figure(one.technique, f"{len(one.timeline['fate']):,} datagrams")
        for one in found
        if one.timeline
    )
    if not figures:
        return ""
    return (
        f"<h3>One swap of each, datagram by datagram</h3><p>{LEGEND} The grey band is the command that swaps.</p>"
        f'<div class="pair">{figures}</div>'
    )
