"""Which dataplanes hold on a kernel: a word and its reason for each, and kernels side by side."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness import ledger
from harness.kernels import END, START, put, table
from harness.ledger import FATES
from harness.matrix import Outcome
from harness.planes import Cell, cells, document, scenarios, verdict
from harness.scenario import Record
from swapper.dataplane import ENGINES
from swapper.model import DataplaneName
from tests.unit.test_expect import COUNT, fates, record, some

HOST = {"kernel": "5.10.0-38-cloud-amd64", "system": "Debian 12", "nft": "nftables v1.0.6", "python": "Python 3.11.2"}
SWAPPED = json.dumps({"dataplane": "zones", "engine": "iptables-nft"})
LACKS = "swapper: game: this kernel has no nf_tables;\n  load it: modprobe nf_tables"


def played(fate4: Any, fate6: Any, **changes: Any) -> Outcome:
    """A run of both families with one stream each."""
    made = record(fate4, families=(4, 6), dataplane="zones", engine="nftables")
    account = made.ledger
    assert account is not None
    (four,) = account.streams
    six = replace(four, plan=replace(four.plan, id=2, family=6), fate=np.array(fate6))
    made.ledger = replace(account, streams=(four, six))
    made.scenario = replace(made.scenario, rate_per_s=2 * COUNT)
    made.said = SWAPPED
    return Outcome(made.scenario, replace(made, **changes))


def refused(code: int, said: str) -> Outcome:
    """A run that ended with a command's refusal."""
    made = record(fates(), families=(4, 6), dataplane="zones", engine="nftables")
    return Outcome(made.scenario, Record(made.scenario, problems=["it ended"], exit_code=code, said=said))


def states(outcome: Outcome) -> list[str]:
    return [cell.state for cell in cells(outcome)]


def test_each_dataplane_is_played_on_each_of_its_engines_and_once_on_none() -> None:
    asked = {(s.dataplane, s.engine) for s in scenarios()}
    assert asked == {(name, engine) for name, engines in ENGINES.items() for engine in engines} | {(None, None)}
    assert {s.engine for s in scenarios() if s.udp == "drain"} == set(ENGINES[DataplaneName.ZONES])
    assert len({s.name for s in scenarios()}) == len(scenarios())


def test_each_family_has_a_verdict_of_its_own() -> None:
    assert states(played(fates(), fates())) == ["holds", "holds"]
    four, six = cells(played(fates(), some(fates(), 3, FATES.index("lost_down"))))
    assert (four.state, four.datagrams, four.why[:12]) == ("holds", COUNT, "0 of 2000 lo")
    assert (six.state, six.why) == ("fails", "3 lost_down")


def test_a_flush_owes_each_family_its_share() -> None:
    lost = some(fates(), 40, FATES.index("lost_down"))
    made = played(lost, lost)
    flush = replace(made.scenario, dataplane="classic", expect="flush", service_ms=20)
    assert states(Outcome(flush, made.record)) == ["holds", "holds"]
    assert states(Outcome(replace(flush, service_ms=40), made.record)) == ["inconclusive", "inconclusive"]


def test_what_swapper_calls_missing_is_not_available_in_its_own_words() -> None:
    (four, six) = cells(refused(6, LACKS))
    assert (four.state, six.state, four.why) == ("not available", "not available", LACKS)
    assert states(played(fates(), fates(), problems=["it ended"], exit_code=6, said=LACKS)) == ["fails", "fails"]


def test_a_kernel_that_refuses_is_a_failure_and_a_run_that_proves_nothing_no_verdict() -> None:
    assert states(refused(4, "line 3: File exists")) == ["fails", "fails"]
    assert states(played(fates(), fates(), problems=["the sender was late"])) == ["inconclusive", "inconclusive"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["holds", "not available"], "pass"),
        (["not available"], "inconclusive"),
        (["holds", "inconclusive"], "inconclusive"),
        (["holds", "inconclusive", "fails"], "fail"),
    ],
)
def test_the_verdict_on_a_kernel(found: list[Any], expected: str) -> None:
    assert verdict([Cell("zones", "nftables", 4, state, "") for state in found]) == expected


def test_kernels_stand_side_by_side_and_every_other_word_than_holds_has_its_reason_once() -> None:
    old = document([refused(6, LACKS), _default(played(fates(), fates()))], HOST)
    new = document([played(fates(), fates())], {**HOST, "kernel": "6.1.0-40-amd64", "system": "Debian 13"})
    lines = table([json.loads(json.dumps(one)) for one in (old, new)]).splitlines()
    assert lines[:4] == [
        "| dataplane | engine | Linux 5.10, IPv4 | Linux 5.10, IPv6 | Linux 6.1, IPv4 | Linux 6.1, IPv6 |",
        "|---|---|---|---|---|---|",
        "| zones | nftables | not available (1) | not available (1) | holds | holds |",
        f"| default | none configured |{2 * ' holds: zones on iptables-nft |'} not played | not played |",
    ]
    text = "\n".join(lines)
    assert "0 of 2,000 datagrams or more" in text.replace("\n", " ")
    assert "- Linux 5.10: 5.10.0-38-cloud-amd64 under Debian 12, with nftables v1.0.6, Python 3.11.2" in lines
    reasons = [line for line in lines if line.startswith("1. ")]
    assert reasons == [
        "1. Linux 5.10, zones on nftables: swapper: game: this kernel has no nf_tables; load it: modprobe nf_tables"
    ]
    assert max(map(len, lines[4:])) <= 120


def test_two_kernels_of_one_version_stand_side_by_side_by_their_releases() -> None:
    other = "5.10.230-vanilla"
    both = [document([played(fates(), fates())], host) for host in (HOST, {**HOST, "kernel": other})]
    heading, _, row, *_ = table(both).splitlines()
    columns = [f"Linux {kernel}, IPv{family}" for kernel in (HOST["kernel"], other) for family in (4, 6)]
    assert heading == f"| dataplane | engine | {' | '.join(columns)} |"
    assert row.count("holds") == 4


def test_the_table_replaces_what_is_between_its_markers_and_nothing_else() -> None:
    page = f"before\n{START}old\n{END}after\n"
    assert put("new\n", page) == f"before\n{START}new\n{END}after\n"
    for broken in ("before\n", START, END + START):
        with pytest.raises(ValueError, match="lacks the line"):
            put("new\n", broken)


def test_the_account_of_one_family_is_that_of_its_streams() -> None:
    account = played(fates(), some(fates(), 3, FATES.index("lost_up"))).record.ledger
    assert isinstance(account, ledger.Ledger)
    assert [account.of(family).lost for family in (4, 6)] == [0, 3]
    assert account.of(6).scheduled == COUNT


def _default(outcome: Outcome) -> Outcome:
    """The same run with nothing configured."""
    return Outcome(replace(outcome.scenario, dataplane=None, engine=None), outcome.record)
