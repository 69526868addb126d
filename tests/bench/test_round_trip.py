"""What the path through a dataplane costs, as a ratio to the direct path within one run."""

from __future__ import annotations

import pytest

from bench.parts.paths import compare
from harness.pingpong import DIRECT, Route, rtts_us

pytestmark = pytest.mark.bench

LOOKS = 15  # at the growing record, each with its share of the 5 % that all of them may err
MOST = {"stateless": 1.03, "zones": 1.12}


@pytest.mark.parametrize("dataplane", MOST)
def test_the_median_round_trip_is_close_to_the_direct_one(dataplane: str) -> None:
    routes = (DIRECT, Route(dataplane, dataplane, "nftables"))
    together: dict[str, list[float]] = {route.name: [] for route in routes}
    # Until the interval lies on one side of the limit; a machine on which it never does proves nothing.
    for number in range(LOOKS):
        for name, values in rtts_us(routes, seconds=4, seed=number).items():
            together[name] += values
        found = compare(together, seed=1, confidence=1 - 0.05 / LOOKS)[1]
        if found.high <= MOST[dataplane] or found.low > MOST[dataplane]:
            break
    assert found.high <= MOST[dataplane], found
