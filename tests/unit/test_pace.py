"""A machine that holds a scenario plays it as it is; on a slower one fewer datagrams show the same."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace

import pytest

from harness.calibrate import processors
from harness.matrix import full, links, soak, storms
from harness.pace import Pace, slowed
from harness.scenario import Scenario

FAST = Pace(command_s=0.12, exchange_s=200e-6, lone_exchange_s=400e-6, cpus=2)
SLOW = Pace(command_s=1.5, exchange_s=3e-3, lone_exchange_s=12e-3, cpus=2)
FLUSH = Scenario(dataplane="classic", service_ms=20, expect="flush")


@pytest.mark.parametrize("scenario", [*full(netem=True), *soak()], ids=lambda scenario: scenario.name)
def test_a_machine_that_holds_a_scenario_plays_it_as_it_is(scenario: Scenario) -> None:
    assert slowed(scenario, FAST) is scenario


@pytest.mark.parametrize("scenario", full(netem=True), ids=lambda scenario: scenario.name)
def test_what_must_be_shown_is_never_slowed_away(scenario: Scenario) -> None:
    slow = slowed(scenario, SLOW)
    assert slow.expect == scenario.expect
    assert slow.swaps == scenario.swaps or 4 <= slow.swaps < scenario.swaps
    assert slow.rate_per_s <= scenario.rate_per_s
    assert slow.seconds >= min(scenario.seconds, slow.lead_s + slow.swaps * SLOW.command_s)
    assert (slow.drain_timeout_s, slow.families, slow.sides) == (
        scenario.drain_timeout_s,
        scenario.families,
        scenario.sides,
    )


@pytest.mark.parametrize("scenario", soak(), ids=lambda scenario: scenario.name)
def test_a_long_proof_has_every_swap_and_every_datagram_on_a_slow_machine_too(scenario: Scenario) -> None:
    slow = slowed(scenario, SLOW)
    assert slow.swaps == 200
    assert slow.rate_per_s * len(slow.sides) * slow.seconds >= 400_000


@pytest.mark.parametrize("scenario", storms(), ids=lambda scenario: scenario.name)
def test_a_storm_has_as_many_swaps_for_each_datagram(scenario: Scenario) -> None:
    slow = slowed(scenario, SLOW)
    as_many = scenario.storm_swaps * slow.rate_per_s / scenario.rate_per_s
    assert abs(slow.storm_swaps - as_many) <= 0.5  # a swap is whole


def test_every_flow_has_sent_before_the_first_swap() -> None:
    slow = slowed(Scenario(sides=("outside",), flows=10_000, rate_per_s=4000, seconds=9), SLOW)
    assert slow.lead_s * slow.rate_per_s >= slow.flows > 100


def test_a_flow_that_sends_is_not_idle() -> None:
    slow = slowed(Scenario(pattern="both", idle_timeout_s=1, seconds=3, udp="drain", drain_timeout_s=60), SLOW)
    assert 3 * slow.flows / slow.rate_per_s <= slow.idle_timeout_s < 10


def test_a_drain_ends_before_the_streams() -> None:
    slow = slowed(Scenario(udp="drain", expect="drain", drain_timeout_s=2, seconds=6), SLOW)
    assert slow.seconds - slow.lead_s >= 2 + 2 * SLOW.command_s


def test_a_drain_that_ends_with_the_streams_does_not_end_them() -> None:
    assert not slowed(Scenario(udp="drain", drain_timeout_s=60), SLOW).curtailed
    assert slowed(Scenario(udp="drain", drain_timeout_s=2, seconds=6), SLOW).curtailed


def test_the_processors_carry_the_rate() -> None:
    slow = slowed(FLUSH, SLOW)
    assert slow.rate_per_s * len(slow.sides) * SLOW.lone_exchange_s <= 0.36 * SLOW.cpus


def test_a_machine_that_its_commands_keep_busy_does_not_hold_what_it_would_hold_without() -> None:
    late = replace(FAST, lone_exchange_s=1e-3, command_s=1.5)
    assert slowed(FLUSH, late).rate_per_s < FLUSH.rate_per_s
    assert slowed(FLUSH, replace(late, exchange_s=FAST.exchange_s / 2)).rate_per_s == FLUSH.rate_per_s


def test_the_sooner_the_old_set_is_stopped_the_less_streams_may_fall_behind() -> None:
    assert slowed(FLUSH, FAST) is FLUSH
    assert slowed(replace(FLUSH, stop_old_after_s=0.1), FAST).rate_per_s < FLUSH.rate_per_s


def test_connections_beside_the_datagrams_are_carried_too() -> None:
    alone, beside = slowed(Scenario(), SLOW), slowed(Scenario(tcp=True), SLOW)
    assert beside.rate_per_s < alone.rate_per_s
    assert beside.tcp_rate_per_s / Scenario().tcp_rate_per_s == pytest.approx(
        beside.rate_per_s / Scenario().rate_per_s, rel=0.1
    )


def test_what_scapy_builds_takes_its_time_too() -> None:
    by_scapy = Scenario(sender="scapy", rate_per_s=300)
    assert slowed(by_scapy, FAST) is by_scapy
    assert slowed(by_scapy, SLOW).rate_per_s < slowed(replace(by_scapy, sender="socket"), SLOW).rate_per_s


def test_as_many_replies_are_in_flight_at_a_swap() -> None:
    slow = slowed(FLUSH, SLOW)
    assert slow.rate_per_s * slow.service_ms == pytest.approx(FLUSH.rate_per_s * FLUSH.service_ms, rel=0.01)
    assert slow.stop_old_after_s > slow.service_ms / 1000
    assert slow.lead_s > slow.service_ms / 1000


def test_a_pause_fills_the_buffer_with_as_many_datagrams() -> None:
    paused = Scenario(pause_ms=300, expect="paused")
    slow = slowed(paused, SLOW)
    assert slow.rate_per_s * slow.pause_ms == pytest.approx(paused.rate_per_s * paused.pause_ms, rel=0.01)


@pytest.mark.parametrize("bad", links(), ids=lambda scenario: scenario.name)
def test_a_bad_link_stays_as_bad_and_has_enough_datagrams_to_be_bad_to(bad: Scenario) -> None:
    slow = slowed(bad, SLOW)
    assert (slow.loss_percent, slow.reorder_percent) == (bad.loss_percent, bad.reorder_percent)
    assert slow.delay_ms == bad.delay_ms or bad.reorder_percent
    assert slow.rate_per_s * slow.seconds * (slow.loss_percent or slow.reorder_percent) / 100 >= 10
    assert slow.stop_old_after_s > (slow.delay_ms + slow.service_ms) / 1000


def test_on_a_link_that_reorders_a_datagram_finds_others_to_overtake() -> None:
    for slow in (slowed(bad, SLOW) for bad in links() if bad.reorder_percent):
        of_one_stream_per_s = slow.rate_per_s / len(slow.families)
        assert slow.connected
        assert of_one_stream_per_s * slow.delay_ms / 1000 > 2


@pytest.mark.parametrize("swaps", [1, 20])
def test_a_swap_ends_before_the_next_and_before_the_streams(swaps: int) -> None:
    slow = slowed(Scenario(swaps=swaps, seconds=2), SLOW)
    begins = [*slow.moments_s(), slow.seconds]
    assert len(begins) == slow.swaps + 1
    assert all(b - a >= 2 * SLOW.command_s + slow.stop_old_after_s for a, b in itertools.pairwise(begins))


def test_scenarios_that_are_played_side_by_side_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
    assert processors() == os.cpu_count()
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    assert processors() * 2 == os.cpu_count()
