"""What the path through a dataplane costs, as a ratio to the direct path within one run."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import pytest

from bench.parts.paths import compare
from harness.pingpong import DIRECT, Route, rtts_us
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.bench

LOOKS = 15  # at the growing record, each with its share of the 5 % that all of them may err
MOST = {"stateless": 1.03, "zones": 1.12}
MOST_ON_ONE_CORE = {"stateless": 1.125, "zones": 1.25}
# Between two machines a round trip is mostly the waking: on two cores this many times as long as on one, and more.
# Where a hypervisor wakes quicker, the same path has a larger share: what it may take on one core, and half as much
# again, since its code runs on both.
WAKING = 3.0
ON_BOTH = 1.5

each_dataplane = pytest.mark.parametrize("dataplane", MOST)


def looked_at(dataplane: str, limit: Callable[[float], float], *, one_core: bool) -> None:
    """Until the interval lies on one side of the limit; a machine on which it never does proves nothing.

    `limit` is told the median of the direct round trip, in microseconds.
    """
    routes = (DIRECT, Route(dataplane, dataplane, "nftables"))
    together: dict[str, list[float]] = {route.name: [] for route in routes}
    for number in range(LOOKS):
        for name, values in rtts_us(routes, seconds=4, seed=number, one_core=one_core).items():
            together[name] += values
        found = compare(together, seed=1, confidence=1 - 0.05 / LOOKS)[1]
        most = limit(median(together[DIRECT.name]))
        if found.high <= most or found.low > most:
            break
    support.MEASURED.info("%s: %s, at most %.3f", dataplane, found, most)
    assert found.high <= most, found


@each_dataplane
def test_the_median_round_trip_is_close_to_the_direct_one(dataplane: str) -> None:
    # Whatever else the machine does can only add.
    on_one_core_us = min(
        median(rtts_us((DIRECT,), seconds=1, seed=seed, one_core=True)[DIRECT.name]) for seed in range(3)
    )

    def limit(direct_us: float) -> float:
        if direct_us >= WAKING * on_one_core_us:
            return MOST[dataplane]
        return 1 + ON_BOTH * (MOST_ON_ONE_CORE[dataplane] - 1) * on_one_core_us / direct_us

    looked_at(dataplane, limit, one_core=False)


@each_dataplane
def test_on_one_core_nothing_but_the_path_is_left_and_that_is_short(dataplane: str) -> None:
    looked_at(dataplane, lambda _: MOST_ON_ONE_CORE[dataplane], one_core=True)
