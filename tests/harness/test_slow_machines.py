"""What a slow machine plays shows the same, in the time that its swap takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.calibrate import pace
from harness.pace import rarity
from harness.scenario import Scenario, run
from harness.specs import tail_s, tcp_exchanges_per_s

pytestmark = pytest.mark.harness

RATE_PER_S = 500
ENDING_S = 5.0  # for the old set to report, at most

CLASSIC = Scenario(dataplane="classic", engine="iptables-nft", families=(4,), sides=("outside",))
SCENARIOS = {
    "once": Scenario(pattern="both", service_ms=20),
    "to and fro": Scenario(swaps=4),
    "push": Scenario(backend="push"),
    "tcp": Scenario(tcp=True),
    # Controls: they pass when they lose just what they have to.
    "every 50th dropped": Scenario(drop_every=50, expect="nth"),
    "targeted flush": replace(CLASSIC, service_ms=20, expect="flush"),
    "no flush": replace(CLASSIC, flush="none", expect="pinned"),
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_curtailed_streams_end_with_the_last_swap_and_every_slot_until_then_is_accounted_for(
    scenario: Scenario,
) -> None:
    datagrams_per_s, beside_per_s = RATE_PER_S * len(scenario.sides), tcp_exchanges_per_s(scenario)
    rate_per_s = round(RATE_PER_S / rarity(datagrams_per_s, pace(), beside_per_s=beside_per_s))
    rarer = RATE_PER_S / rate_per_s  # as harness.pace does: a rate is whole, and all else gets as rare
    slow = replace(
        scenario,
        rate_per_s=rate_per_s,
        service_ms=scenario.service_ms * rarer,
        push_rate_per_s=scenario.push_rate_per_s / rarer,
        tcp_rate_per_s=scenario.tcp_rate_per_s / rarer,
        tcp_new_every_ms=scenario.tcp_new_every_ms * rarer,
        lead_s=0.5,
        seconds=90,
        curtailed=True,
    )
    record = run(slow)
    assert (record.verdict, len(record.swaps_ns)) == ("pass", scenario.swaps), record.why
    assert record.ledger is not None
    assert record.ledger.scheduled * rarer > 300
    for stream in record.ledger.streams:
        assert len(stream.sent_ns) == stream.plan.count > 0
        assert stream.sent_ns.all()
    ended_ns = max(stream.sent_ns.max() for stream in record.ledger.streams)
    assert (ended_ns - record.swaps_ns[-1][1]) / 1e9 < slow.stop_old_after_s + tail_s(slow) + ENDING_S


def test_streams_that_end_before_they_are_told_to_say_what_they_saw() -> None:
    record = run(Scenario(sides=("outside",), families=(4,), seconds=1, lead_s=0.5, stop_old_after_s=2, curtailed=True))
    assert record.ledger is not None
    assert record.ledger.scheduled == 2000
