"""A drain under load: who stays, for how long, and that neither its start nor its end loses a datagram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.scenario import Scenario

if TYPE_CHECKING:
    from harness.plugin import Play

pytestmark = pytest.mark.netns


def test_ten_thousand_flows_stay_until_the_deadline_and_lose_nothing(swap_scenario: Play) -> None:
    record = swap_scenario(
        Scenario(
            name="drain of 10,000 flows",
            engine="nftables",
            sides=("outside",),
            flows=10_000,
            rate_per_s=4000,
            seconds=9,
            udp="drain",
            drain_timeout_s=2,
            expect="drain",
        )
    )
    assert record.ledger is not None
    assert record.ledger.totals["answered_green"] > 0


def test_a_drain_ends_as_soon_as_its_flows_are_idle(swap_scenario: Play) -> None:
    record = swap_scenario(
        Scenario(
            name="drain until idle",
            engine="nftables",
            pattern="both",
            seconds=3,
            udp="drain",
            drain_timeout_s=60,
            idle_timeout_s=1,
            expect="drain",
        )
    )
    ((began, ended),) = record.swaps_ns
    assert ended - began < 20e9, "the deadline was 60 s away, the flows were idle after 3"
