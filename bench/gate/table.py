"""The findings of the gate for people: lines for a terminal, a table of Markdown for a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.gate.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.gate.budget import Limit
    from bench.gate.verdict import Finding

    Again = Callable[[Limit], str]  # the command that measures a limit once more

__all__ = ["lines", "markdown"]

HEADLINES: Final = {
    "pass": "The budget is kept.",
    "fail": "**The budget is broken.**",
    "inconclusive": "**Nothing broke the budget, but what proves nothing may lose datagrams.**",
}
BUSY: Final = (
    "Nothing that was proved breaks the budget. A busy machine proves little of latency: that holds no change back."
)


def lines(findings: Sequence[Finding], again: Again) -> Iterator[str]:
    """Every limit with what was found; one that was not kept, with its reason and how to see it again."""
    for one in findings:
        yield f"{one.verdict:<13}{one.limit.name}: {one.found}"
        if one.verdict != "pass":
            yield f"{'':<13}{one.limit.reason}; see it again: {again(one.limit)}"


def markdown(findings: Sequence[Finding], again: Again) -> str:
    """The same as a table."""
    rows = [f"| {_cell(one.limit.name)} | {one.verdict} | {_cell(one.found)} |" for one in findings]
    more = [
        f"- {one.limit.name}: {one.limit.reason}; see it again: `{again(one.limit)}`"
        for one in findings
        if one.verdict != "pass"
    ]
    head = [_headline(findings), "", "| limit | verdict | found |", "|---|---|---|"]
    return "\n".join([*head, *rows, *([""] if more else []), *more, ""])


def _headline(findings: Sequence[Finding]) -> str:
    unproved = [one for one in findings if one.verdict == "inconclusive"]
    if verdict(findings) == "inconclusive" and all(one.is_unproved_latency for one in unproved):
        return BUSY
    return HEADLINES[verdict(findings)]


def _cell(text: str) -> str:
    """A text that may hold the output of a command, in one cell."""
    return text.replace("|", "\\|").replace("\n", "<br>")
