"""A machine that holds a scenario plays it as it is; on a slower one fewer datagrams show the same."""

from __future__ import annotations

import pytest

from harness.matrix import full, soak
from harness.pace import Pace, slowed
from harness.scenario import Scenario

FAST = Pace(command_s=0.12, exchange_s=60e-6, cpus=2)
SLOW = Pace(command_s=1.5, exchange_s=2e-3, cpus=2)
FLUSH = Scenario(dataplane="classic", service_ms=20, expect="flush")


@pytest.mark.parametrize("scenario", [*full(), *soak()], ids=lambda scenario: scenario.name)
def test_a_machine_that_holds_a_scenario_plays_it_as_it_is(scenario: Scenario) -> None:
    assert slowed(scenario, FAST) is scenario


@pytest.mark.parametrize("scenario", full(), ids=lambda scenario: scenario.name)
def test_what_must_be_shown_is_never_slowed_away(scenario: Scenario) -> None:
    slow = slowed(scenario, SLOW)
    assert (slow.expect, slow.swaps, slow.storm_swaps) == (scenario.expect, scenario.swaps, scenario.storm_swaps)
    assert slow.rate_per_s <= scenario.rate_per_s
    assert slow.seconds >= scenario.seconds


def test_the_processors_carry_the_rate() -> None:
    slow = slowed(FLUSH, SLOW)
    assert slow.rate_per_s * len(slow.sides) * SLOW.exchange_s <= 0.26 * SLOW.cpus


def test_as_many_replies_are_in_flight_at_a_swap() -> None:
    slow = slowed(FLUSH, SLOW)
    assert slow.rate_per_s * slow.service_ms == pytest.approx(FLUSH.rate_per_s * FLUSH.service_ms, rel=0.01)
    assert slow.stop_old_after_s > slow.service_ms / 1000


def test_a_pause_fills_the_buffer_with_as_many_datagrams() -> None:
    paused = Scenario(pause_ms=300, expect="paused")
    slow = slowed(paused, SLOW)
    assert slow.rate_per_s * slow.pause_ms == pytest.approx(paused.rate_per_s * paused.pause_ms, rel=0.01)


@pytest.mark.parametrize("swaps", [1, 20])
def test_a_swap_ends_before_the_next_and_before_the_streams(swaps: int) -> None:
    slow = slowed(Scenario(swaps=swaps, seconds=2), SLOW)
    assert slow.seconds / (swaps + 1) >= 2 * SLOW.command_s + slow.stop_old_after_s
