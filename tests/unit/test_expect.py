"""Verdicts over hand-made runs: every rule has a run that it must not let pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness import ledger
from harness.expect import has_faults, judge, outlasted, owed
from harness.ledger import FATES
from harness.scenario import Record, Scenario

NS = 1_000_000_000
COUNT = 2000
SWAP_NS = (NS // 2, NS // 2 + 20_000_000)
BLUE, GREEN, LOST_UP, LOST_DOWN, MISADDRESSED = 0, 1, 2, 3, 4
RECEIVER_DROPPED, NOT_SENT = FATES.index("receiver_dropped"), FATES.index("not_sent")


def fates(before: int = BLUE, after: int = GREEN) -> Any:
    """One second at 2,000/s with the swap in the middle."""
    fate = np.full(COUNT, before, np.uint8)
    fate[COUNT // 2 :] = after
    return fate


def record(fate: Any, *, side: str = "outside", fresh: bool = False, **scenario: Any) -> Record:
    """A run of one stream in which each datagram met the given fate."""
    plan = ledger.Plan(1, side, 4, COUNT, COUNT)
    due = np.arange(COUNT, dtype=np.int64) * NS // COUNT
    stream = ledger.StreamLedger(plan, due, due, fate, due + 1000, 0)
    totals = {**stream.counts()}
    account = ledger.Ledger((stream,), 0, 0.0, {}, 0.0, 0, totals)
    made = Record(Scenario(sides=("outside",), rate_per_s=COUNT, **scenario), account, swaps_ns=[SWAP_NS])
    made.stopped_ns = SWAP_NS[1]
    made.fresh_streams = frozenset({1} if fresh else ())
    return made


def verdict(made: Record) -> str:
    return judge(made)[0]


def some(fate: Any, number: int, other: int, *, at: int = COUNT // 2) -> Any:
    """The same with `number` datagrams from `at` on of another fate."""
    fate[at : at + number] = other
    return fate


def test_a_clean_swap_passes_and_prints_its_bound() -> None:
    assert judge(record(fates())) == ("pass", "0 of 2000 lost (below 1.5e-03 at 95 %)")


def test_a_verdict_says_how_many_swaps_it_is_on() -> None:
    lost = record(some(fates(), 1, LOST_UP))
    for number, words in ((1, ""), (4, "; 4 swaps")):
        lost.commits_ms = [0.1] * number
        assert judge(lost) == ("fail", f"1 lost_up{words}")


def test_the_old_backend_owes_rate_times_service_time() -> None:
    assert owed(Scenario(sides=("outside",), rate_per_s=10_000, service_ms=20)) == 200
    assert owed(Scenario(sides=("outside", "inside"), rate_per_s=500, service_ms=5)) == 5
    assert owed(Scenario(service_ms=0)) == 0


@pytest.mark.parametrize(
    "bad", [LOST_UP, LOST_DOWN, MISADDRESSED, FATES.index("misdelivered"), FATES.index("corrupted")]
)
def test_one_datagram_of_any_bad_fate_fails(bad: int) -> None:
    assert verdict(record(some(fates(), 1, bad))) == "fail"


def test_a_duplicate_or_a_stray_fails() -> None:
    doubled = record(fates())
    assert doubled.ledger is not None
    doubled.ledger = replace(doubled.ledger, totals={**doubled.ledger.totals, "duplicate": 1})
    assert verdict(doubled) == "fail"
    stray = record(fates())
    assert stray.ledger is not None
    stray.ledger = replace(stray.ledger, strays=1)
    assert verdict(stray) == "fail"


def pushed(**counts: int) -> Record:
    made = record(fates(), backend="push")
    names = ("pushed", "received", "lost", "misaddressed", "receiver_dropped", "duplicate")
    made.pushes = {**dict.fromkeys(names, 0), "pushed": 9, "received": 9, **counts}
    return made


def test_a_push_that_is_lost_fails_and_one_that_nobody_could_take_proves_nothing() -> None:
    assert verdict(pushed()) == "pass"
    assert [verdict(pushed(**{bad: 1})) for bad in ("lost", "misaddressed", "duplicate")] == ["fail"] * 3
    assert verdict(pushed(receiver_dropped=1)) == "inconclusive"
    assert verdict(pushed(pushed=0, received=0)) == "inconclusive"


def test_a_run_with_any_fault_is_not_made_again() -> None:
    assert not has_faults(record(fates()))
    assert not has_faults(record(some(fates(), 1, RECEIVER_DROPPED)))
    assert has_faults(record(some(fates(), 1, NOT_SENT)))
    reset = record(fates())
    reset.tcp = {"broken": 1}
    assert all(has_faults(made) for made in (record(some(fates(), 1, LOST_UP)), pushed(duplicate=1), reset))


def test_a_run_with_a_datagram_on_the_old_set_is_not_made_again_although_its_last_swap_was_late() -> None:
    for at, faulty in ((COUNT * 3 // 4, True), (COUNT // 2 + 10, False)):
        made = record(some(fates(), 1, BLUE, at=at), swaps=2)
        made.swaps_ns = [SWAP_NS, (NS - 10, NS + 10)]
        assert (verdict(made), outlasted(made), has_faults(made)) == ("inconclusive", True, faulty)


def test_a_datagram_on_the_old_set_after_the_swap_fails() -> None:
    assert verdict(record(some(fates(), 1, BLUE, at=COUNT - 10))) == "fail"


@pytest.mark.parametrize(
    "made",
    [
        record(fates(after=BLUE)),
        record(some(fates(), 1, NOT_SENT)),
        record(some(fates(), 1, RECEIVER_DROPPED)),
    ],
    ids=["nothing moved", "not all was sent", "a full buffer"],
)
def test_what_proves_nothing_is_inconclusive(made: Record) -> None:
    assert verdict(made) == "inconclusive"


def test_no_swap_a_late_swap_and_contradictions_are_inconclusive() -> None:
    never, late, contradicted = record(fates()), record(fates()), record(fates())
    slow = record(fates(), swap_command="./swap.sh")
    never.swaps_ns = []
    late.swaps_ns = [(NS - 10, NS + 10)]
    slow.swaps_ns = [(NS // 2, NS - NS // 10)]  # nothing after it is late enough to tell where traffic goes
    contradicted.problems = ["host: UdpInDatagrams moved by 1, the logs say 2"]
    assert [verdict(made) for made in (never, late, slow, contradicted)] == ["inconclusive"] * 4
    assert [outlasted(made) for made in (never, late, slow, contradicted)] == [False, True, True, False]
    stopped = record(fates(), expect="pinned")
    stopped.stopped_ns = NS + 10
    assert outlasted(stopped)


@pytest.mark.parametrize(
    ("lost", "expected"), [(40, "pass"), (32, "pass"), (48, "pass"), (20, "inconclusive"), (90, "inconclusive")]
)
def test_a_flush_must_lose_rate_times_service_time(lost: int, expected: str) -> None:
    assert verdict(record(some(fates(), lost, LOST_DOWN), expect="flush", service_ms=20)) == expected


def test_a_flush_after_a_burst_must_lose_the_burst_too() -> None:
    """A sender that the machine had put aside for 10 ms sends what was due meanwhile at once."""
    burst, after = COUNT // 2, COUNT // 2 + 20
    for at, expected in ((burst, "pass"), (after, "inconclusive")):
        made = record(some(fates(), after + 40 - at, LOST_DOWN, at=at), expect="flush", service_ms=20)
        assert made.ledger is not None
        made.ledger.streams[0].sent_ns[burst:after] = NS // 2 + 10_000_000
        assert verdict(made) == expected


def test_a_flush_that_loses_requests_fails() -> None:
    assert verdict(record(some(fates(), 40, LOST_UP), expect="flush", service_ms=20)) == "fail"


def test_pinned_flows_must_be_served_and_stay_and_be_lost() -> None:
    assert verdict(record(fates(after=LOST_UP), expect="pinned")) == "pass"
    assert verdict(record(fates(), expect="pinned")) == "inconclusive"
    assert verdict(record(fates(after=BLUE), expect="pinned")) == "inconclusive"
    assert verdict(record(fates(LOST_UP, LOST_UP), expect="pinned")) == "inconclusive"
    assert verdict(record(some(fates(after=LOST_UP), 100, LOST_UP, at=0), expect="pinned")) == "inconclusive"


def test_a_stream_that_never_moved_proves_nothing_although_another_did() -> None:
    """A swap command that takes its time and forgets the clients inside ends when the streams nearly have."""
    assert verdict(both_sides(fates(), fates(), expect="zero")) == "pass"
    assert judge(both_sides(fates(), fates(after=BLUE), expect="zero")) == (
        "inconclusive",
        "only one backend answered datagrams from inside, IPv4: no swap moved them",
    )


def both_sides(outside: Any, inside: Any, *, expect: str = "outside_only") -> Record:
    """A run of two streams, one from each side."""
    made, other = record(outside, expect=expect), record(inside, side="inside")
    assert made.ledger is not None
    assert other.ledger is not None
    totals = {name: number + other.ledger.totals[name] for name, number in made.ledger.totals.items()}
    made.ledger = replace(made.ledger, streams=made.ledger.streams + other.ledger.streams, totals=totals)
    return made


def test_without_output_rules_the_inside_must_not_be_served_and_the_outside_must() -> None:
    pinned, nobody = fates(after=LOST_UP), fates(LOST_UP, LOST_UP)
    assert verdict(both_sides(pinned, nobody)) == "pass"
    assert verdict(both_sides(pinned, fates(LOST_UP, BLUE))) == "inconclusive"
    assert verdict(both_sides(nobody, nobody)) == "inconclusive"
    assert verdict(both_sides(some(nobody.copy(), 1, BLUE, at=0), nobody)) == "inconclusive"
    assert verdict(record(nobody, side="inside", expect="outside_only")) == "inconclusive"
    assert verdict(record(pinned, expect="outside_only")) == "inconclusive"


def test_what_a_rule_dropped_must_be_found_exactly() -> None:
    for found, expected in ((10, "pass"), (9, "inconclusive"), (11, "inconclusive")):
        made = record(some(fates(), found, LOST_UP), expect="nth")
        made.dropped_by_rule = 10
        assert verdict(made) == expected


def linked(made: Record, *, up: int = 0, down: int = 0, overtook: tuple[int, int] = (0, 0)) -> Record:
    """The same on a link that says that it dropped so many, and put so many ahead of others."""
    made.link = {
        "up": {"passed": COUNT - up, "dropped": up, "overtook": overtook[0]},
        "down": {"passed": COUNT - up - down, "dropped": down, "overtook": overtook[1]},
    }
    return made


LOSSY: dict[str, Any] = {"delay_ms": 20, "loss_percent": 1}


def lossy(*, lost_up: int = 9, lost_down: int = 7) -> Record:
    """A run on a link that dropped 9 and 7."""
    fate = some(some(fates(), lost_up, LOST_UP, at=10), lost_down, LOST_DOWN, at=1900)
    return linked(record(fate, **LOSSY), up=9, down=7)


def test_what_a_link_lost_is_told_from_what_the_swap_lost() -> None:
    said = "the link lost 9 of 2000 requests and 7 of 1991 replies"
    assert judge(lossy()) == ("pass", f"0 of 1984 lost (below 1.5e-03 at 95 %); {said}")
    assert judge(lossy(lost_up=10)) == ("fail", "1 lost_up")
    assert judge(lossy(lost_down=8)) == ("fail", "1 lost_down")
    assert [has_faults(made) for made in (lossy(), lossy(lost_up=10))] == [False, True]


def test_a_link_that_says_more_than_is_missing_from_outside_proves_nothing() -> None:
    assert judge(lossy(lost_up=8)) == ("inconclusive", "the link dropped 9, but only 8 from outside are lost_up")
    inside = both_sides(fates(), some(fates(), 9, LOST_UP, at=10), expect="zero")
    assert verdict(linked(inside, up=9)) == "inconclusive"


def test_who_does_not_cross_the_link_must_lose_nothing() -> None:
    inside = both_sides(some(fates(), 9, LOST_UP, at=10), some(fates(), 1, LOST_UP, at=10), expect="zero")
    assert judge(linked(inside, up=9)) == ("fail", "1 lost_up")


def test_a_link_that_was_to_lose_or_to_reorder_must() -> None:
    assert verdict(linked(record(some(fates(), 9, LOST_UP, at=10), **LOSSY), up=9)) == "inconclusive"
    said = "the link lost 0 of 2000 requests and 0 of 2000 replies, 2 requests and 1 replies overtook others"
    said += ", 3 replies came out of order"
    assert judge(reordered(3)) == ("pass", f"0 of 2000 lost (below 1.5e-03 at 95 %); {said}")
    assert [verdict(made) for made in (reordered(0), reordered(3, up=0), reordered(3, down=0))] == ["inconclusive"] * 3


def reordered(number: int, *, up: int = 2, down: int = 1) -> Record:
    """A run in which so many replies came one place too late, on a link that says that it put so many ahead."""
    made = linked(record(fates(), delay_ms=20, reorder_percent=5), overtook=(up, down))
    assert made.ledger is not None
    came = made.ledger.streams[0].answered_ns
    for first in range(0, 2 * number, 2):
        came[[first, first + 1]] = came[[first + 1, first]]
    return made


def test_without_a_swap_a_bad_link_loses_as_much_and_nothing_else_is_missing() -> None:
    said = "the link, without a swap, lost 9 of 2000 requests and 7 of 1991 replies"
    assert judge(unswapped()) == ("pass", f"0 of 1984 lost (below 1.5e-03 at 95 %); {said}")
    assert judge(unswapped(lost_up=10)) == ("fail", "1 lost_up")


def unswapped(*, lost_up: int = 9) -> Record:
    """A run without a swap on a link that dropped 9 and 7."""
    fate = some(some(fates(after=BLUE), lost_up, LOST_UP, at=10), 7, LOST_DOWN, at=1900)
    made = linked(record(fate, swaps=0, **LOSSY), up=9, down=7)
    made.swaps_ns = []
    return made


def test_what_was_under_way_before_the_next_swap_may_come_after_it() -> None:
    late = fates()
    late[COUNT * 9 // 10 :] = BLUE
    for sent_before_ms, expected in ((10, "pass"), (30, "fail")):
        made = linked(record(late, swaps=2, delay_ms=20))
        again_ns = NS * 9 // 10 + sent_before_ms * 1_000_000
        made.swaps_ns = [SWAP_NS, (again_ns, again_ns)]
        assert verdict(made) == expected


def test_a_paused_receivers_losses_must_all_be_its_buffers() -> None:
    assert verdict(record(some(fates(), 10, RECEIVER_DROPPED), expect="paused")) == "pass"
    assert verdict(record(fates(), expect="paused")) == "inconclusive"
    both = some(some(fates(), 10, RECEIVER_DROPPED), 1, LOST_DOWN, at=10)
    assert verdict(record(both, expect="paused")) == "inconclusive"


def drained(fate: Any, *, fresh: bool = False) -> Record:
    return record(fate, fresh=fresh, expect="drain", udp="drain", drain_timeout_s=0.3)


def test_a_drain_keeps_old_flows_until_the_deadline_and_no_longer() -> None:
    kept = fates()
    kept[: COUNT * 9 // 10] = BLUE
    assert verdict(drained(kept)) == "pass"
    assert verdict(drained(fates())) == "fail"  # cut at once
    assert verdict(drained(some(kept.copy(), 1, BLUE, at=COUNT - 1))) == "pass"  # within what a time stamp can say
    early = fates()
    early[COUNT - 10 :] = BLUE  # old flows on the old set half a second after their cut
    assert verdict(drained(early)) == "fail"


# The families of an iptables engine are committed one after the other, 250 ms apart where that takes so long.
@pytest.mark.parametrize(
    ("engine", "commit_ms", "expected"),
    [("nftables", 300, "fail"), ("iptables-nft", 300, "pass"), ("iptables-nft", 50, "fail")],
)
def test_only_iptables_moves_each_family_by_a_commit_of_its_own(engine: str, commit_ms: float, expected: str) -> None:
    made, later = (drained(fate, fresh=True) for fate in (fates(), some(fates(), COUNT // 4, BLUE)))
    assert made.ledger is not None
    assert later.ledger is not None
    (stream,) = later.ledger.streams
    sixth = replace(stream, plan=replace(stream.plan, id=2, family=6))
    both = replace(made, scenario=replace(made.scenario, engine=engine), fresh_streams=frozenset({1, 2}))
    both.swaps_ns, both.commits_ms = [(SWAP_NS[0], SWAP_NS[1] + NS // 4)], [commit_ms]
    both.ledger = replace(made.ledger, streams=(*made.ledger.streams, sixth))
    assert verdict(both) == expected


def of_both_kinds(every: int = 1) -> Record:
    """Old flows move at 0.8 s, new ones, each so-many-th datagram of them, at 0.5 s; the deadline is 0.5 s."""
    kept = fates()
    kept[: COUNT * 8 // 10] = BLUE
    made, new = drained(kept), drained(fates())
    assert made.ledger is not None
    assert new.ledger is not None
    (old,), (fresh,) = made.ledger.streams, new.ledger.streams
    rare = replace(
        fresh,
        plan=replace(fresh.plan, id=2),
        due_ns=fresh.due_ns[::every],
        sent_ns=fresh.sent_ns[::every],
        fate=fresh.fate[::every],
        answered_ns=fresh.answered_ns[::every],
    )
    both = replace(made, scenario=replace(made.scenario, drain_timeout_s=0.5), fresh_streams=frozenset({2}))
    both.swaps_ns = [(NS * 3 // 10, NS * 3 // 4)]
    both.ledger = replace(made.ledger, streams=(old, rare))
    return both


@pytest.mark.parametrize(("engine", "expected"), [("nftables", "fail"), ("iptables-nft", "pass")])
def test_only_the_deadline_of_iptables_counts_from_before_the_commit(engine: str, expected: str) -> None:
    """The commit took 0.1 s."""
    made = of_both_kinds()
    assert verdict(replace(made, scenario=replace(made.scenario, engine=engine), commits_ms=[100])) == expected


def test_the_rarer_new_flows_are_the_less_is_known_of_when_a_drain_began() -> None:
    """Between the last of them on the old set and the first on the new one lies the commit."""
    for every, expected in ((1, "fail"), (COUNT // 5, "pass")):  # or one at 0.4 s and the next at 0.6 s
        assert verdict(of_both_kinds(every)) == expected


def test_a_new_flow_on_the_old_set_during_a_drain_fails() -> None:
    late = fates()
    late[COUNT - 10 :] = BLUE
    assert verdict(drained(late, fresh=True)) == "fail"
