"""What the journal of a run comes to: the document of results. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bench import noise
from bench.processors import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["assembled", "values"]

Entry = dict[str, Any]
LATENCY: Final = "rtt"


def values(entries: Sequence[Entry]) -> dict[tuple[str, str], Any]:
    """What was measured, by part and step; steps that failed are not in it."""
    return {(entry["part"], entry["step"]): entry["value"] for entry in entries if "value" in entry}


def assembled(header: Entry, entries: Sequence[Entry]) -> Entry:
    """The document; a step that failed and was measured when the run went on has not failed."""
    found = values(entries)
    measured: dict[str, Entry] = {part: {} for part in header["options"]["parts"]}
    for (part, step), value in found.items():
        measured[part][step] = value
    steps = [entry for entry in entries if "step" in entry]
    failed = [entry for entry in steps if (entry["part"], entry["step"]) not in found]
    rests = [entry["at_rest"] for entry in entries if "at_rest" in entry]
    verdict = noise.judged(
        at_rest=[Usage(**one) for one in rests],
        timed=[Usage(**entry["usage"]) for entry in steps if entry["part"] == LATENCY],
        again_ratio=noise.again_ratio(measured.get(LATENCY, {})),
    )
    return {
        "options": header["options"],
        "environment": {
            **header["environment"],
            "load": {"at_rest": rests, "steps": {_name(entry): entry["usage"] for entry in steps}},
        },
        "noise": verdict.to_json(),
        "missing": header["missing"],
        "failed": {_name(entry): entry["failed"] for entry in failed},
        "measured": measured,
    }


def _name(entry: Entry) -> str:
    return f"{entry['part']}/{entry['step']}"
