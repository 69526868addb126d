"""Slows a scenario down to what a machine was measured to hold; pure.

The datagrams of a run get rarer and the run longer, and what is under way at a time stays the same, so each scenario
still shows what it was made to show. A machine that holds a scenario as it is plays it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from harness.scenario import Scenario

__all__ = ["Pace", "slowed"]

BUSY: Final = 0.25  # of all processors, for datagrams alone: the swap's own command needs most of one
SWAP_COMMANDS: Final = 2.5  # a swap does more than a command that only starts, and beside the streams
LEGACY: Final = 1.5  # of that for iptables-legacy, which commits in a child
RELAUNCH_COMMANDS: Final = 0.5  # a backend loads less than a command
MARGIN_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """What one machine takes for what scenarios are made of."""

    command_s: float  # for the `swapper` command, from start to end
    exchange_s: float  # for one datagram to another process and back
    cpus: int


def slowed(scenario: Scenario, pace: Pace) -> Scenario:
    """The scenario as this machine can hold it; unchanged where it holds it as it is."""
    rarer, longer = max(1.0, _rarer(scenario, pace)), max(1.0, _longer(scenario, pace))
    if rarer == longer == 1:
        return scenario
    return replace(
        scenario,
        rate_per_s=max(1, round(scenario.rate_per_s / rarer)),
        # What is in flight at a time, and what fills a buffer, is a number of datagrams.
        service_ms=scenario.service_ms * rarer,
        pause_ms=round(scenario.pause_ms * rarer),
        seconds=scenario.seconds * longer,
        stop_old_after_s=max(scenario.stop_old_after_s, MARGIN_S + scenario.service_ms * rarer / 1000),
        drain_timeout_s=scenario.drain_timeout_s * longer,
        idle_timeout_s=scenario.idle_timeout_s * longer,
    )


def _rarer(scenario: Scenario, pace: Pace) -> float:
    """By which factor the rate is too high for the processors."""
    per_s = scenario.rate_per_s * len(scenario.sides)
    return per_s * pace.exchange_s / (BUSY * pace.cpus)


def _longer(scenario: Scenario, pace: Pace) -> float:
    """By which factor the time between two swaps is too short for a swap and what follows it."""
    if scenario.storm_swaps or not scenario.swaps:
        return 1.0
    commands = SWAP_COMMANDS * (LEGACY if scenario.engine == "iptables-legacy" else 1)
    if scenario.swaps > 1:
        commands += RELAUNCH_COMMANDS
    # A swap waits for twice the receiver's pause, which grows as datagrams get rarer.
    paused_s = 2 * scenario.pause_ms / 1000 * max(0.0, _rarer(scenario, pace) - 1)
    needed_s = paused_s + commands * pace.command_s + scenario.stop_old_after_s + MARGIN_S
    return needed_s * (scenario.swaps + 1) / scenario.seconds
