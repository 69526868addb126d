"""What an account costs: the logs are in memory, every datagram gets its fate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness import records, wire
from harness.ledger import BackendLog, Plan, account

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

T0_NS = 1_700_000_000_000_000_000
STREAM = 7
DATAGRAMS = 100_000
SWAPPED_AT = DATAGRAMS // 2


def test_account(benchmark: BenchmarkFixture) -> None:
    """One stream of 20,000/s for 5 s, answered by blue and then by green; one datagram in a hundred gets no answer."""
    plan = Plan(STREAM, "outside", 4, 20_000, DATAGRAMS)
    sent_ns = plan.due_ns(T0_NS) + 1_000
    seen = _log(records.SEEN_FIELDS, sent_ns + 10_000)
    received = _log(records.RECEIVED_FIELDS, sent_ns + 50_000)
    received["who"] = np.where(received["seq"] < SWAPPED_AT, wire.BLUE, wire.GREEN)

    ledger = benchmark(
        account,
        [plan],
        t0_ns=T0_NS,
        sent={STREAM: sent_ns},
        received=[received[received["seq"] % 100 != 0]],
        backends=[BackendLog(wire.BLUE, seen[:SWAPPED_AT]), BackendLog(wire.GREEN, seen[SWAPPED_AT:])],
        swaps_ns=[int(sent_ns[SWAPPED_AT])],
    )
    assert (ledger.scheduled, ledger.lost, ledger.totals["lost_down"]) == (DATAGRAMS, 1_000, 1_000)


def _log(fields: dict[str, str], at_ns: Any) -> Any:
    """One record of each datagram, in order."""
    log = np.zeros(DATAGRAMS, np.dtype(list(fields.items())))
    log["stream"], log["seq"], log["recv_ns"] = STREAM, np.arange(DATAGRAMS), at_ns
    return log
