"""What the bench makes of round trips: which are asked for, how rounds add up, how sure a comparison is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.parts.paths import DATAPLANES, KINDS, compare, steps, summary
from bench.proxies import PROXIES
from bench.step import Plan
from harness.pingpong import DIRECT, RoundTrips

BY_NAME = {kind.name: kind for kind in KINDS}


def turns(*medians_us: float) -> dict[str, Any]:
    """The JSON of a route whose turns had three equal exchanges each."""
    times_ns = [round(us * 1000) for us in medians_us for _ in range(3)]
    document: dict[str, Any] = json.loads(json.dumps(RoundTrips.of(times_ns, turn=3).to_json()))
    return document


def test_rounds_add_up() -> None:
    (zones,) = summary(
        {
            "two cores, round 1": {"direct": turns(20, 30), "zones": turns(22, 33)},
            "two cores, round 2": {"direct": turns(40), "zones": turns(444)},
        },
        seed=1,
    )["two cores"][1:]
    assert (zones.name, zones.turns, zones.n) == ("zones", 3, 9)
    assert (zones.p50_us, zones.ratio, zones.adds_us) == pytest.approx((33, 1.1, 3))
    assert (zones.p99_us, zones.p999_us, zones.max_us) == pytest.approx((444, 444, 444), rel=0.01)
    assert zones.per_s == pytest.approx(1e6 / 33)


def test_a_path_that_missed_a_round_is_compared_within_the_others() -> None:
    rounds = {
        "tcp connect, round 1": {"direct": turns(20, 20), "haproxy": turns(40, 40)},
        "tcp connect, round 2": {"direct": turns(80, 80)},
    }
    direct, haproxy = summary(rounds, seed=1)["tcp connect"]
    assert (direct.turns, direct.ratio) == (4, 1)
    assert (haproxy.turns, haproxy.ratio) == (2, 2)


@pytest.mark.parametrize("count", [1, 2, 8, 9, 200])
def test_the_interval_is_that_of_resampling(count: int) -> None:
    ratios = np.random.default_rng(count).lognormal(sigma=0.2, size=count)
    (_, one) = compare({DIRECT.name: [1.0] * count, "path": ratios.tolist()}, seed=1, confidence=0.8)
    resampled = np.median(np.random.default_rng(2).choice(ratios, (20_000, count)), axis=1)
    ranks = [(np.mean(resampled < end), np.mean(resampled <= end)) for end in (one.low, one.high)]
    for (least, most), share in zip(ranks, (0.1, 0.9), strict=True):
        assert least - 0.03 <= share <= most + 0.03


def test_a_plan_always_gives_the_same_steps_every_kind_once_a_round() -> None:
    names = [step.name for step in steps(Plan(seed=7))]
    assert names == [step.name for step in steps(Plan(seed=7))]
    assert sorted(names) != names
    assert set(names) == {f"{kind.name}, round {number}" for kind in KINDS for number in range(1, 11)}
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("plan", "total_s"), [(Plan(), 300), (Plan(quick=True), 45), (Plan(rtt_s=10), 10)])
def test_the_steps_take_the_time_that_was_asked_for(plan: Plan, total_s: float) -> None:
    assert sum(step.about_s for step in steps(plan)) == pytest.approx(total_s)


def test_each_proxy_is_asked_for_what_it_carries() -> None:
    planes = {route.name for route in DATAPLANES}
    asked = {
        name: {route.name for route in kind.routes(Plan(proxies=PROXIES))} - planes for name, kind in BY_NAME.items()
    }
    assert asked["two cores"] == {"nginx", "envoy", "docker-proxy", "socat"}
    assert asked["one core"] == set()
    assert asked["first datagram"] == {"nginx", "envoy", "docker-proxy"}
    assert asked["tcp connect"] == asked["tcp request"] == {"nginx", "docker-proxy", "socat", "haproxy"}


def test_a_dataplane_that_this_host_lacks_is_left_out_and_nothing_else() -> None:
    plan = Plan(proxies=PROXIES, lacking=frozenset({"zones iptables-legacy"}))
    for kind in KINDS:
        left_out = {route.name for route in kind.routes(replace(plan, lacking=frozenset()))}
        left_out -= {route.name for route in kind.routes(plan)}
        assert left_out == {"zones iptables-legacy"}
