"""What a slow machine plays shows the same, in the time that its swap takes."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from harness.scenario import Scenario, run

pytestmark = pytest.mark.netns


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(pattern="both", service_ms=20),
        Scenario(swaps=4, lead_s=0.5),
        Scenario(backend="push"),
        Scenario(tcp=True),
    ],
    ids=["once", "to and fro", "push", "tcp"],
)
def test_curtailed_streams_end_with_the_last_swap_and_every_slot_until_then_is_accounted_for(
    scenario: Scenario,
) -> None:
    began_s = time.monotonic()
    record = run(replace(scenario, seconds=30, lead_s=scenario.lead_s or 0.5, rate_per_s=500, curtailed=True))
    assert (record.verdict, len(record.swaps_ns)) == ("pass", scenario.swaps), record.why
    assert time.monotonic() - began_s < 15
    assert record.ledger is not None
    assert 300 < record.ledger.scheduled < 500 * 3 * 10
    for stream in record.ledger.streams:
        assert len(stream.sent_ns) == stream.plan.count
        assert stream.sent_ns.all()


def test_streams_that_end_before_they_are_told_to_say_what_they_saw() -> None:
    record = run(Scenario(sides=("outside",), families=(4,), seconds=1, lead_s=0.5, stop_old_after_s=2, curtailed=True))
    assert record.ledger is not None
    assert record.ledger.scheduled == 2000
