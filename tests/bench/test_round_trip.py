"""What the path through a dataplane costs, as a ratio to another path within one run."""

from __future__ import annotations

from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

import pytest

from bench.parts.paths import compare
from harness.pingpong import DIRECT, Route, rtts_us
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.netns import Namespace

pytestmark = pytest.mark.bench

LOOKS = 15  # at the growing record, each with its share of the 5 % that all of them may err
# Between two machines a round trip is mostly the waking: on two cores this many times as long as on one, and more. What
# stateless adds on one core, 0.085 of the round trip, was seen to be 1.6 times as much on two: 0.03 from 4.5 times on.
WAKING = 5.0
MOST_OF_DIRECT = {"stateless": 1.03, "zones": 1.12}
MOST_OF_DIRECT_ON_ONE_CORE = {"stateless": 1.125, "zones": 1.25}
MOST_OF_BY_HAND = {"stateless": 1.02, "zones": 1.12}

each_dataplane = pytest.mark.parametrize("dataplane", MOST_OF_DIRECT)


@contextmanager
def one_rule(
    host: Namespace,
    folder: Path,  # noqa: ARG001 - a front may keep files there, this one has none
    *,
    public: int,
    backend: int,
) -> Iterator[None]:
    """Nothing but the rule that people write by hand, and conntrack as everybody has it."""
    rule = f"-p udp --dport {public} -j DNAT --to-destination :{backend}"
    host.run(["iptables-nft", "-t", "nat", "-A", "PREROUTING", *rule.split()])
    yield


BY_HAND = Route("by hand", front=one_rule)


def looked_at(dataplane: str, beside: Route, most: float, *, one_core: bool) -> None:
    """Until the interval lies on one side of the limit; a machine on which it never does proves nothing."""
    routes = (beside, Route(dataplane, dataplane, "nftables"))
    together: dict[str, list[float]] = {route.name: [] for route in routes}
    for number in range(LOOKS):
        for name, values in rtts_us(routes, seconds=4, seed=number, one_core=one_core).items():
            together[name] += values
        found = compare(together, seed=1, confidence=1 - 0.05 / LOOKS, against=beside.name)[1]
        if found.high <= most or found.low > most:
            break
    support.MEASURED.info("%s beside %s: %s, at most %.3f", dataplane, beside.name, found, most)
    assert found.high <= most, found


@each_dataplane
def test_the_median_round_trip_is_close_to_the_direct_one(dataplane: str) -> None:
    # Whatever else the machine does can only add.
    one_us, two_us = (
        min(median(rtts_us((DIRECT,), seconds=1, seed=seed, one_core=one_core)[DIRECT.name]) for seed in range(3))
        for one_core in (True, False)
    )
    if two_us >= WAKING * one_us:
        looked_at(dataplane, DIRECT, MOST_OF_DIRECT[dataplane], one_core=False)
    else:  # where a core wakes quicker, the path's share of the whole tells of the machine
        looked_at(dataplane, BY_HAND, MOST_OF_BY_HAND[dataplane], one_core=False)


@each_dataplane
def test_on_one_core_nothing_but_the_path_is_left_and_that_is_short(dataplane: str) -> None:
    looked_at(dataplane, DIRECT, MOST_OF_DIRECT_ON_ONE_CORE[dataplane], one_core=True)
