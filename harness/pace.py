"""Slows a scenario down to what a machine was measured to hold; pure.

The datagrams of a run get rarer, its flows fewer and the run longer, and what is under way at a time stays the same, so
each scenario still shows what it was made to show. A machine that holds a scenario as it is plays it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from harness import specs

if TYPE_CHECKING:
    from harness.scenario import Scenario

__all__ = ["Pace", "rarity", "slowed"]

MEASURED: Final = 0.75  # of what a datagram takes in a scenario: rules, capture and fragments come on top
BEHIND_S: Final = 0.3  # that streams may fall behind beside a swap's command: most old sets are stopped so much later
SPARED: Final = 0.35  # of all processors, for datagrams, where they are slowed: the command then needs most of one
SWAP_COMMANDS: Final = 2.5  # a swap does more than a command that only starts, and beside the streams
LEGACY: Final = 2.0  # of that for iptables-legacy, which commits in a child
SCAPY: Final = 3  # exchanges that building a datagram with scapy takes as long as: before the first, all others wait
RELAUNCH_COMMANDS: Final = 0.5  # a backend loads less than a command
MARGIN_S: Final = 0.1
LEAST_SWAPS: Final = 4  # of many: there and back, twice
BAD: Final = 10  # datagrams that a bad link loses or reorders each way: that it is none has one chance in e^10
LEAST_FLOWS: Final = 16  # of many
IDLE_GAPS: Final = 3  # between two datagrams of a flow, before it counts as idle
SLACK: Final = 2  # where streams end with what the swap has shown, more time for it costs none
LEAD_S: Final = 0.5  # of curtailed streams before a swap, once as much is in flight as ever will be
SEEN: Final = 1.2  # times that every flow has sent before the first swap


@dataclass(frozen=True, slots=True)
class Pace:
    """What one machine takes for what scenarios are made of."""

    command_s: float  # for the `swapper` command, from start to end
    exchange_s: float  # of processors, for one datagram to another process and back, where the next comes at once
    lone_exchange_s: float  # the same where all that it wakes has gone to sleep meanwhile
    cpus: float  # the share of whoever plays, where several do at once


def rarity(rate_per_s: float, pace: Pace, *, beside_per_s: float = 0, most_behind_s: float = BEHIND_S) -> float:
    """By which factor datagrams must get rarer for this machine to hold them; 1 where it holds them as they are.

    It does where streams fall behind by no more than `most_behind_s` while a swap's command takes a processor.
    Where it does not, there has to be room for other exchanges `beside` them, which get as rare.
    """
    busy = rate_per_s * pace.exchange_s / MEASURED
    behind_s = max(0.0, busy + 1 - pace.cpus) * SWAP_COMMANDS * pace.command_s
    if busy <= pace.cpus and behind_s <= most_behind_s:
        return 1.0
    return max(1.0, (rate_per_s + beside_per_s) * pace.lone_exchange_s / (SPARED * pace.cpus))


def slowed(scenario: Scenario, pace: Pace) -> Scenario:
    """The scenario as this machine can hold it; unchanged where it holds it as it is."""
    datagrams_per_s = scenario.rate_per_s * len(scenario.sides) * (1 + SCAPY * (scenario.sender == "scapy"))
    beside_per_s = specs.tcp_exchanges_per_s(scenario)
    most_behind_s = min(BEHIND_S, scenario.stop_old_after_s)
    factor = rarity(datagrams_per_s, pace, beside_per_s=beside_per_s, most_behind_s=most_behind_s)
    rate_per_s = max(1, round(scenario.rate_per_s / factor))
    rarer = scenario.rate_per_s / rate_per_s  # a rate is whole, and all else gets as rare
    flows = min(scenario.flows, max(LEAST_FLOWS, round(scenario.flows / rarer)))
    # What is in flight at a time, or overtaken, and what fills a buffer, is a number of datagrams.
    service_ms = scenario.service_ms * rarer
    delay_ms = scenario.delay_ms * (rarer if scenario.reorder_percent else 1)
    rare = replace(
        scenario,
        rate_per_s=rate_per_s,
        flows=flows,
        service_ms=service_ms,
        delay_ms=delay_ms,
        push_rate_per_s=scenario.push_rate_per_s / rarer,
        tcp_rate_per_s=scenario.tcp_rate_per_s / rarer,
        tcp_new_every_ms=scenario.tcp_new_every_ms * rarer,
        pause_ms=round(scenario.pause_ms * rarer),
        stop_old_after_s=max(scenario.stop_old_after_s, MARGIN_S + (delay_ms + service_ms) / 1000),
        idle_timeout_s=max(scenario.idle_timeout_s, IDLE_GAPS * flows / rate_per_s),
        storm_swaps=round(scenario.storm_swaps / rarer),
    )
    # A swap waits for twice the receiver's pause.
    needed_s = max(_needed_s(rare, pace) + 2 * (rare.pause_ms - scenario.pause_ms) / 1000, _bad_s(rare))
    if scenario.unabridged:
        needed_s = max(needed_s, scenario.period_s * rarer)
    if rarer == 1 and needed_s <= scenario.period_s:
        return scenario
    return _longer(rare, needed_s)


def _needed_s(scenario: Scenario, pace: Pace) -> float:
    """What a swap and all that follows it takes, up to the next, or until the streams may end."""
    if not scenario.swaps:
        return 0.0
    commands = SWAP_COMMANDS * (LEGACY if scenario.engine == "iptables-legacy" else 1)
    if scenario.swaps > 1:
        commands += RELAUNCH_COMMANDS
    # The old set is stopped once the drain is over.
    drains = scenario.udp == "drain" and not _outlives_streams(scenario)
    then_s = scenario.drain_timeout_s if drains else scenario.stop_old_after_s
    return commands * pace.command_s + then_s + MARGIN_S


def _outlives_streams(scenario: Scenario) -> bool:
    """Whether a drain's deadline is beyond the streams: it ends once they have."""
    return scenario.udp == "drain" and scenario.drain_timeout_s >= scenario.period_s


def _bad_s(scenario: Scenario) -> float:
    """What a bad link takes to show what it does."""
    percents = [percent for percent in (scenario.loss_percent, scenario.reorder_percent) if percent]
    return max((BAD / (scenario.rate_per_s * percent / 100) for percent in percents), default=0.0)


def _longer(scenario: Scenario, needed_s: float) -> Scenario:
    """The scenario with so much time for each swap; of many swaps fewer are made, unless it is unabridged."""
    (first_s, *_), period_s, swaps = scenario.moments_s() or [0.0], scenario.period_s, scenario.swaps
    if needed_s > period_s and not scenario.unabridged:
        swaps = max(min(swaps, LEAST_SWAPS), int(swaps * period_s / needed_s))
    whole = scenario.unabridged or scenario.has_bad_link or scenario.storm_swaps or _outlives_streams(scenario)
    curtailed = not whole
    if curtailed:
        first_s = min(first_s, LEAD_S) + scenario.service_ms / 1000
    lead_s = max(first_s, SEEN * scenario.flows / scenario.rate_per_s)
    seconds = lead_s + max(1, swaps) * max(period_s, needed_s * (SLACK if curtailed else 1))
    return replace(scenario, swaps=swaps, lead_s=lead_s, seconds=seconds, curtailed=curtailed)
