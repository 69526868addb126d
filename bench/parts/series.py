"""What the sweeps found, as lines to be drawn: pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Series", "series"]


@dataclass(frozen=True, slots=True)
class Series:
    """One path in one sweep: its points by growing `x`.

    A point has what was measured there: `ratio`, `low`, `high`, `n` against the direct path, the same of a flow's
    `first` datagram, `commit_ms` of each swap, or `lost`, `sent`, `model`, `verdict`, `why` of one swap. Where
    nothing could be measured it has `failed`, the reason.
    """

    kind: str
    unit: str
    path: str
    points: tuple[Mapping[str, Any], ...]


def series(measured: Mapping[str, Mapping[str, Any]]) -> list[Series]:
    """Every series of the part `sweeps`, by kind and path; steps that are not there yet leave gaps."""
    units: dict[str, str] = {}
    lines: dict[tuple[str, str], dict[float, dict[str, Any]]] = {}
    for value in measured.get("sweeps", {}).values():
        units[value["kind"]] = value["unit"]
        for point in value["points"]:
            # Several steps may measure at one point, each something else.
            lines.setdefault((value["kind"], point["path"]), {}).setdefault(point["x"], {}).update(point)
    return [
        Series(kind, units[kind], path, tuple(points[x] for x in sorted(points)))
        for (kind, path), points in sorted(lines.items())
    ]
