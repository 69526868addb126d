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

__all__ = ["LEGEND", "Timeline"]

WIDTH, HEIGHT, FOOT = 1000, 200, 24  # units of the drawing, stretched to the page; marks of loss are in the foot
HEADROOM = 1.25  # over all but the slowest answers
LEGEND = (
    "Each mark is a datagram by the time it was due and its RTT: "
    '<span class="key blue">answered by blue</span>, <span class="key green">answered by green</span>, '
    '<span class="key lost">at the foot: not answered properly</span>. Marks that cover each other are drawn once.'
)
COLOURS = {ANSWERED_BLUE: "blue", ANSWERED_GREEN: "green"}


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each datagram was due, in ms since the first, what became of it, its RTT in ms, and when swaps were run."""

    due_ms: list[float]
    rtt_ms: list[float]
    fate: list[int]
    swaps_ms: list[tuple[float, float]]

    @classmethod
    def of(cls, record: Record) -> Timeline | None:
        """The timeline of a run; None where nothing could be counted."""
        account = record.ledger
        if account is None:
            return None
        due = np.concatenate([stream.due_ns for stream in account.streams])
        fate = np.concatenate([stream.fate for stream in account.streams])
        rtt_ms = (np.concatenate([stream.answered_ns for stream in account.streams]) - due) / 1e6
        answered = (fate == ANSWERED_BLUE) | (fate == ANSWERED_GREEN)
        return cls(
            ((due - record.t0_ns) / 1e6).round(3).tolist(),
            np.where(answered, rtt_ms, 0).round(3).tolist(),
            fate.tolist(),
            [((begin - record.t0_ns) / 1e6, (end - record.t0_ns) / 1e6) for begin, end in record.swaps_ns],
        )

    def to_json(self) -> dict[str, Any]:
        """What `Timeline(**...)` takes."""
        return asdict(self)

    def figure(self, name: str, caption: str) -> str:
        """A figure of HTML, for a `harness.page`; both texts are plain."""
        due, rtt_ms, fate = (np.array(values) for values in (self.due_ms, self.rtt_ms, self.fate))
        answered = (fate == ANSWERED_BLUE) | (fate == ANSWERED_GREEN)
        slowest_ms = float(rtt_ms[answered].max(initial=0))
        usual_ms = float(np.percentile(rtt_ms[answered], 99.5)) if answered.any() else 1.0
        top_ms, span_ms = max(1.0, usual_ms * HEADROOM), float(due.max(initial=0)) or 1.0
        x = due / span_ms * WIDTH
        y = HEIGHT - np.clip(rtt_ms, 0, top_ms) / top_ms * HEIGHT
        bands = "".join(_band(begin / span_ms, end / span_ms) for begin, end in self.swaps_ms)
        dots = "".join(_dots(colour, x[fate == which], y[fate == which]) for which, colour in COLOURS.items())
        lost_x = x[~answered & (fate != NOT_SENT)].round(1)
        losses = _marks("lost", lost_x, np.full(len(lost_x), HEIGHT + 8), "v12") if len(lost_x) else ""
        title = html.escape(name)
        return (
            f'<figure class="timeline"><h3>{title}</h3>'
            f'<div class="axis"><span>{top_ms:.0f} ms{" and more" if slowest_ms > top_ms else ""}</span></div>'
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" preserveAspectRatio="none" role="img">'
            f"<title>{title}: timeline</title><desc>{html.escape(self._in_words())}</desc>"
            f'{bands}<path class="foot" d="M0 {HEIGHT}H{WIDTH}"/>{dots}{losses}</svg>'
            f'<div class="axis"><span>0 s</span><span>{span_ms / 1000:.1f} s</span></div>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def _in_words(self) -> str:
        """What somebody who cannot see the picture has to know."""
        moments = ", ".join(f"{begin / 1000:.2f} s" for begin, _ in self.swaps_ms) or "never"
        blue, green, unsent = (self.fate.count(which) for which in (ANSWERED_BLUE, ANSWERED_GREEN, NOT_SENT))
        lost = len(self.fate) - blue - green - unsent
        return f"Swapped at {moments}: {blue:,} answered by blue, {green:,} by green, {lost:,} not answered properly."


def _band(begin: float, end: float) -> str:
    """A swap, from and to a share of the width."""
    left, right = begin * WIDTH, min(end, 1.0) * WIDTH
    return f'<rect x="{left:.1f}" width="{max(1.5, right - left):.1f}" height="{HEIGHT}"/>'


def _dots(colour: str, x: Numbers, y: Numbers) -> str:
    """A dot at each place, but one where several would cover each other; "" for none."""
    places = np.unique(np.stack([x, y], axis=1).round().astype(int), axis=0)
    return _marks(colour, places[:, 0], places[:, 1], "h0") if len(places) else ""


def _marks(kind: str, x: Numbers, y: Numbers, stroke: str) -> str:
    """One short stroke at each place; as long as nothing, it is a dot."""
    path = "".join(f"M{at_x:g} {at_y:g}{stroke}" for at_x, at_y in zip(x, y, strict=True))
    return f'<path class="mark {kind}" d="{path}"/>'
