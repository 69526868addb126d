"""Several kernels side by side: the table of what `swapper-harness planes` found on each, as Markdown. Pure."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

from harness.planes import Cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.topology import Family

__all__ = ["put", "table"]

START: Final = "<!-- kernels, written by ./dev kernels -->\n"
END: Final = "<!-- end of kernels -->\n"
WIDTH: Final = 120
LEGEND: Final = (
    "`holds`: across a swap under load the dataplane kept its promise. Zones and stateless lost nothing, from outside "
    "the host, from inside it and over loopback: 0 of {fewest:,} datagrams or more, each. A drain besides kept old "
    "flows until its deadline. Classic (from outside) lost the replies in flight, rate x service time, and nothing "
    "else. `not available`: `swapper` ended with exit code 6 and said what is missing."
)


def table(documents: Sequence[Mapping[str, Any]]) -> str:
    """A row for each dataplane and engine, a column for each kernel and family, and below what they stand for."""
    columns: dict[tuple[str, Family], dict[tuple[str, str], Cell]] = {}
    names = _names(documents)
    for kernel, one in zip(names, documents, strict=True):
        for cell in (Cell(**raw) for raw in one["cells"]):
            columns.setdefault((kernel, cell.family), {})[cell.dataplane, cell.engine] = cell
    rows = dict.fromkeys(row for cells in columns.values() for row in cells)
    reasons: list[str] = []
    lines = [_line("dataplane", "engine", *(f"{kernel}, IPv{family}" for kernel, family in columns))]
    lines.append("|---" * (2 + len(columns)) + "|")
    for dataplane, engine in rows:
        words = [_word(cells.get((dataplane, engine)), kernel, reasons) for (kernel, _), cells in columns.items()]
        lines.append(_line(dataplane, engine or "none configured", *words))
    lossless = [
        cell.datagrams
        for cells in columns.values()
        for cell in cells.values()
        if cell.state == "holds" and cell.dataplane != "classic"
    ]
    below = [_wrapped(LEGEND.format(fewest=min(lossless, default=0))) + "\n"]
    below += [_wrapped(f"- {kernel}: {_described(one)}", "  ") for kernel, one in zip(names, documents, strict=True)]
    below += [_wrapped(f"{number}. {reason}", "   ") for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *below, ""])


def put(text: str, into: str) -> str:
    """`into` with `text` between its two markers. Raises ValueError where they are missing."""
    before, start, rest = into.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"it lacks the line {START.strip()} or, below it, the line {END.strip()}")
    return before + start + text + end + after


def _line(*words: str) -> str:
    return f"| {' | '.join(words)} |"


def _word(cell: Cell | None, kernel: str, reasons: list[str]) -> str:
    """What the table says of a cell; the reason that it refers to is found in `reasons`, or added."""
    if cell is None:
        return "not played"
    if cell.state == "holds":
        return "holds" if cell.engine else f"holds: {cell.carried_by}"
    reason = f"{kernel}, {cell.dataplane} on {cell.engine or 'no engine configured'}: {' '.join(cell.why.split())}"
    if reason not in reasons:
        reasons.append(reason)
    return f"{cell.state} ({reasons.index(reason) + 1})"


def _names(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each kernel is called: by its version, or by its release where several share that."""
    releases = [one["host"]["kernel"] for one in documents]
    versions = [".".join(release.split(".")[:2]) for release in releases]
    return [
        f"Linux {version if versions.count(version) == 1 else release}"
        for version, release in zip(versions, releases, strict=True)
    ]


def _described(one: Mapping[str, Any]) -> str:
    host = one["host"]
    programs = ", ".join(host[name] for name in ("iptables", "nft", "python") if name in host)
    return f"{host['kernel']} under {host['system']}, with {programs}"


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
