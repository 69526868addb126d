"""Which dataplanes hold on this kernel: what is played for that, and what a run says of each address family. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from harness.expect import judge
from harness.matrix import PLANES, SECONDS
from harness.scenario import Scenario
from harness.topology import Family

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.matrix import Outcome

__all__ = ["Cell", "cells", "document", "scenarios", "verdict"]

State = Literal["holds", "not available", "fails", "inconclusive"]
STATES: Final[dict[str, State]] = {"pass": "holds", "fail": "fails", "inconclusive": "inconclusive"}
LACKING: Final = 6  # what `swapper` ends with where the host cannot do what it is asked for


@dataclass(frozen=True, slots=True)
class Cell:
    """What became of one dataplane on one engine over one family.

    `holds` is what the dataplane promises: zones and stateless lose nothing, a drain besides keeps old flows until its
    deadline, classic loses the replies in flight (rate x service time) and nothing else.
    """

    dataplane: str  # "default" where neither dataplane nor engine is configured
    engine: str
    family: Family
    state: State
    why: str
    datagrams: int = 0
    carried_by: str = ""  # what Swapper used


def scenarios() -> list[Scenario]:
    """A swap under load for each dataplane on each engine, for each drain, and for what is used by default."""
    cuts = [
        Scenario(f"{dataplane} {engine}", dataplane, engine, pattern="both", service_ms=20, seconds=SECONDS[engine])
        for dataplane, engine in PLANES
    ]
    drains = [
        replace(cut, name=f"{cut.name} drain", udp="drain", expect="drain", service_ms=0, seconds=6)
        for cut in cuts
        if cut.dataplane == "zones"
    ]
    classic = [
        replace(
            cut,
            name=f"classic {cut.engine}",
            dataplane="classic",
            pattern="long",
            sides=("outside",),
            rate_per_s=4000,  # so that each family owes as many replies as a control is made for
            expect="flush",
        )
        for cut in cuts
        if cut.engine != "nftables"
    ]
    return [*cuts, *drains, *classic, replace(cuts[0], name="default", dataplane=None, engine=None)]


def cells(outcome: Outcome) -> list[Cell]:
    """What a run says of each family: they share the run, as they share a host, and are judged apart."""
    return [_cell(outcome, family) for family in outcome.scenario.families]


def document(outcomes: Sequence[Outcome], host: Mapping[str, str]) -> dict[str, Any]:
    """What `swapper-harness planes` writes, version 1."""
    found = [cell for outcome in outcomes for cell in cells(outcome)]
    return {
        "version": 1,
        "verdict": verdict(found),
        "host": dict(host),
        "cells": [asdict(cell) for cell in found],
        "results": [{**outcome.record.to_json(), "tries": outcome.tries} for outcome in outcomes],
    }


def verdict(found: Sequence[Cell]) -> Literal["pass", "fail", "inconclusive"]:
    """`pass` where whatever is available holds; nothing available proves nothing."""
    states = {cell.state for cell in found}
    if "fails" in states:
        return "fail"
    return "pass" if "holds" in states and "inconclusive" not in states else "inconclusive"


def _cell(outcome: Outcome, family: Family) -> Cell:
    scenario, record = outcome.scenario, outcome.record
    dataplane = scenario.dataplane or "default"
    named = f"{dataplane}, drain" if scenario.udp == "drain" else dataplane
    if record.exit_code:
        lacking = record.exit_code == LACKING and not record.swaps_ns
        state: State = "not available" if lacking else "fails"
        return Cell(named, scenario.engine or "", family, state, record.said)
    account = record.ledger.of(family) if record.ledger else None
    share = replace(scenario, families=(family,), rate_per_s=scenario.rate_per_s // len(scenario.families))
    found, why = judge(replace(record, scenario=share, ledger=account))
    swapped = json.loads(record.said or "{}")
    return Cell(
        named,
        scenario.engine or "",
        family,
        STATES[found],
        why,
        datagrams=account.scheduled if account else 0,
        carried_by=f"{swapped['dataplane']} on {swapped['engine']}" if swapped else "",
    )
