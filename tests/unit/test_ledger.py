"""Every scheduled datagram gets one fate; injected faults are counted exactly; contradictions raise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import ledger, pushes, records, wire
from harness.ledger import BackendLog, ImpossibleCountError, Ledger, Plan, account, reconcile

T0 = 1_700_000_000_000_000_000
SEEN: Any = np.dtype(list(records.SEEN_FIELDS.items()))
RECEIVED: Any = np.dtype(list(records.RECEIVED_FIELDS.items()))


@dataclass
class Run:
    """A run of one stream in which everything is answered by blue, until told otherwise."""

    count: int
    seen: list[tuple[int, ...]] = field(default_factory=list)
    received: list[tuple[int, ...]] = field(default_factory=list)
    unsent: set[int] = field(default_factory=set)
    drops: dict[int, int] = field(default_factory=dict)
    backend_drops: dict[int, int] = field(default_factory=dict)
    swaps: tuple[int, ...] = ()
    kind: Any = "echo"

    def due(self, seq: int) -> int:
        return T0 + seq * 1_000_000

    def see(self, seq: int, flags: int = 0) -> None:
        at = self.due(seq) + 10_000
        self.seen.append((7, 0, seq, at, at + 5, 1001, 4, flags))

    def hear(self, seq: int, flags: int = 0, who: int = wire.BLUE, *, after_ns: int = 50_000) -> None:
        self.received.append((7, 0, seq, self.due(seq) + after_ns, who, flags))

    def account(self) -> Ledger:
        sent = np.array([0 if n in self.unsent else self.due(n) + 1 for n in range(self.count)], np.int64)
        return account(
            [Plan(7, "outside", 4, 1000, self.count, self.kind)],
            t0_ns=T0,
            sent={7: sent},
            received=[np.array(self.received, RECEIVED)],
            backends=[BackendLog(wire.BLUE, np.array(self.seen, SEEN))],
            client_drops=self.drops,
            backend_drops=self.backend_drops,
            swaps_ns=self.swaps,
        )


FAULTS = ("fine", "up", "down", "misaddressed", "misdelivered", "corrupted", "unsent", "twice")


@given(st.lists(st.sampled_from(FAULTS), max_size=60))
def test_every_injected_fault_is_counted_exactly_and_the_fates_add_up(faults: list[str]) -> None:
    run = Run(len(faults))
    flags = {
        "misaddressed": records.WRONG_SOURCE,
        "misdelivered": records.WRONG_FLOW,
        "corrupted": records.CORRUPT,
    }
    for seq, fault in enumerate(faults):
        if fault == "unsent":
            run.unsent.add(seq)
        elif fault != "up":
            run.see(seq)
            if fault != "down":
                run.hear(seq, flags.get(fault, 0))
            if fault == "twice":
                run.hear(seq)
    result = run.account()
    assert result.totals == {
        "answered_blue": faults.count("fine") + faults.count("twice"),
        "answered_green": 0,
        "lost_up": faults.count("up"),
        "lost_down": faults.count("down"),
        "misaddressed": faults.count("misaddressed"),
        "misdelivered": faults.count("misdelivered"),
        "corrupted": faults.count("corrupted"),
        "receiver_dropped": 0,
        "not_sent": faults.count("unsent"),
        "duplicate": faults.count("twice"),
    }
    assert sum(result.totals[fate] for fate in ledger.FATES) == result.scheduled == len(faults)


@given(lost=st.integers(0, 20), dropped=st.integers(0, 25))
def test_a_receiver_cannot_have_dropped_more_than_is_lost(lost: int, dropped: int) -> None:
    run = Run(30, drops={7: dropped})
    for seq in range(30):
        run.see(seq)
        if seq >= lost:
            run.hear(seq)
    if dropped > lost:
        with pytest.raises(ImpossibleCountError, match="only"):
            run.account()
    else:
        totals = run.account().totals
        assert (totals["receiver_dropped"], totals["lost_down"]) == (dropped, lost - dropped)


def test_what_a_backend_had_no_room_for_is_taken_from_what_never_reached_one() -> None:
    totals = Run(5, backend_drops={4: 3}).account().totals
    assert (totals["receiver_dropped"], totals["lost_up"]) == (3, 2)


def test_a_reply_to_what_was_never_sent_is_impossible() -> None:
    run = Run(2, unsent={1})
    run.see(0)
    run.hear(1)
    with pytest.raises(ImpossibleCountError, match="never sent"):
        run.account()


def test_a_reply_beyond_the_schedule_is_impossible() -> None:
    run = Run(2)
    run.hear(2)
    with pytest.raises(ImpossibleCountError, match="never sent"):
        run.account()


@pytest.mark.parametrize("who", [wire.NOBODY, wire.GREEN])
def test_a_reply_by_a_backend_without_a_log_of_it_is_impossible(who: int) -> None:
    run = Run(1)
    run.see(0)
    run.hear(0, who=who)
    with pytest.raises(ImpossibleCountError, match="no log"):
        run.account()


def test_a_one_way_stream_ends_at_the_backend() -> None:
    run = Run(3, kind="sink")
    run.see(0)
    run.see(0)
    run.see(2)
    totals = run.account().totals
    assert (totals["answered_blue"], totals["lost_up"], totals["duplicate"]) == (2, 1, 1)


@given(begin=st.integers(1, 40), length=st.integers(0, 20))
def test_blackout_is_what_was_missing_around_the_swap(begin: int, length: int) -> None:
    run = Run(70, swaps=(T0 + begin * 1_000_000,))
    for seq in range(70):
        run.see(seq)
        if not begin <= seq < begin + length:
            run.hear(seq)
    assert run.account().blackout_ms == length


def test_rtt_counts_from_the_schedule() -> None:
    run = Run(1)
    run.see(0)
    run.hear(0)
    assert run.account().rtt_us["max"] == 50


@given(st.lists(st.none() | st.integers(0, 9), max_size=30))
def test_out_of_order_is_what_came_after_one_that_was_sent_later(took_ms: list[int | None]) -> None:
    run = Run(len(took_ms))
    for seq, took in enumerate(took_ms):
        run.see(seq)
        if took is not None:
            run.hear(seq, after_ns=took * 1_000_000)
    came = [seq + took for seq, took in enumerate(took_ms) if took is not None]
    assert run.account().out_of_order == sum(min(came[at:]) < came[at] for at in range(len(came)))


def test_pushes_are_counted_by_who_sent_them() -> None:
    pushed = np.array([(7, 0, n, 0, 1, 1001, 4, records.PUSHED) for n in range(5)], SEEN)
    heard = np.array(
        [(7, 0, n, 9, wire.BLUE, records.PUSHED | wrong) for n, wrong in ((0, 0), (0, 0), (1, 1), (2, 0))],
        RECEIVED,
    )
    assert pushes.account([BackendLog(wire.BLUE, pushed)], [heard]) == {
        "pushed": 5,
        "received": 2,
        "lost": 2,
        "misaddressed": 1,
        "receiver_dropped": 0,
        "duplicate": 1,
    }


def test_a_counter_that_moved_otherwise_is_named() -> None:
    found = reconcile("host", {"UdpNoPorts": 3, "UdpInDatagrams": 5}, {"UdpNoPorts": 2, "UdpInDatagrams": 5})
    assert found == ["host: UdpNoPorts moved by 3, the logs say 2"]
    assert reconcile("host", {}, {"UdpOutDatagrams": 1}) == ["host: UdpOutDatagrams moved by 0, the logs say 1"]


def test_ledger_and_workers_mean_the_same_by_their_flags() -> None:
    assert (
        ledger.FLAG_WRONG_SOURCE,
        ledger.FLAG_WRONG_FLOW,
        ledger.FLAG_CORRUPT,
        ledger.FLAG_FOREIGN,
        ledger.FLAG_PUSHED,
    ) == (records.WRONG_SOURCE, records.WRONG_FLOW, records.CORRUPT, records.FOREIGN, records.PUSHED)
    assert (ledger.BLUE, ledger.GREEN) == (wire.BLUE, wire.GREEN)
    assert (SEEN.itemsize, RECEIVED.itemsize) == (records.SEEN.size, records.RECEIVED.size)
