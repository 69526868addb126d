"""The search for the highest rate without loss, over paths that are known beforehand; what is summed up of loads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bench.parts import capacity, cost
from bench.parts.search import FLOOR_PER_S, TOP_PER_S, Effort, Try, found, next_rate
from bench.report.costing import highest

if TYPE_CHECKING:
    from collections.abc import Callable

EFFORT = Effort(seconds=1, most_tries=12, confirmations=2, within=1.1)


def attempt(rate: int, *, path_per_s: float = float("inf"), sender_per_s: float = float("inf"), late: int = 0) -> Try:
    """A second of a path that loses what exceeds its rate, from a sender that sends no faster than its own."""
    reached = int(min(rate, sender_per_s))
    return Try(rate, rate, max(0, reached - int(min(path_per_s, rate))), rate if reached < rate else late, reached)


def search(path: Callable[[int], Try], effort: Effort = EFFORT) -> dict[str, Any]:
    tries: list[Try] = []
    while rate := next_rate(tries, effort):
        tries.append(path(rate))
    assert len(tries) <= effort.most_tries
    return found(tries)


@pytest.mark.parametrize("limit", [1_000, 1_234, 7_000, 48_700, 99_999, 333_000])
def test_the_limit_of_a_path_is_found_to_a_tenth_and_confirmed_twice(limit: int) -> None:
    result = search(lambda rate: attempt(rate, path_per_s=limit))
    assert result["limited_by"] == "loss"
    assert limit / 1.11 < result["rate_per_s"] <= limit
    assert [one["rate_per_s"] for one in result["tries"]].count(result["rate_per_s"]) == 3


@pytest.mark.parametrize("reaches", [12_345, 123_456, 390_000])
def test_where_the_sender_gives_in_first_the_path_carries_at_least_what_it_reached(reaches: int) -> None:
    result = search(lambda rate: attempt(rate, sender_per_s=reaches))
    assert result["limited_by"] == "sender"
    assert reaches * 0.9 < result["rate_per_s"] <= reaches
    assert len(result["tries"]) == 3


def test_no_rate_is_tried_above_one_that_the_sender_never_reached() -> None:
    unlucky = iter([Try(TOP_PER_S, TOP_PER_S, 1, TOP_PER_S, 50_000)])
    result = search(lambda rate: next(unlucky, attempt(rate, sender_per_s=50_000)))
    assert (result["rate_per_s"], result["limited_by"]) == (50_000, "sender")
    assert [one["rate_per_s"] for one in result["tries"]] == [400_000, 20_000, 89_000, 89_000, 89_000]


def test_a_path_that_carries_all_that_is_ever_asked_is_limited_by_the_sender() -> None:
    result = search(attempt)
    assert (result["rate_per_s"], result["limited_by"]) == (TOP_PER_S, "sender")


def test_a_path_that_loses_at_every_rate_carries_none_and_says_so() -> None:
    result = search(lambda rate: Try(rate, rate, 1, 0, rate))
    assert (result["rate_per_s"], result["limited_by"]) == (0, "loss")
    assert result["tries"][-1]["rate_per_s"] == FLOOR_PER_S
    (row,) = capacity.summary({"sieve": result})
    assert (row.n, row.lowest_per_s) == (0, FLOOR_PER_S)


def test_a_search_that_ends_early_claims_nothing_of_rates_that_it_did_not_try() -> None:
    result = search(lambda rate: Try(rate, rate, 1, rate, rate), capacity.QUICK)
    (row,) = capacity.summary({"bursts": result})
    assert row.lowest_per_s == result["tries"][-1]["rate_per_s"] > FLOOR_PER_S
    assert highest(row) == f"loses down to {row.lowest_per_s:,}"


def test_a_rate_that_is_not_confirmed_is_not_found() -> None:
    seen: list[int] = []

    def deteriorates(rate: int) -> Try:
        seen.append(rate)
        return attempt(rate, path_per_s=50_000 if len(seen) < 8 else 40_000)

    result = search(deteriorates, replace(EFFORT, most_tries=20))
    assert 40_000 / 1.11 < result["rate_per_s"] <= 40_000


def test_what_is_lost_after_a_burst_counts_only_if_it_is_lost_again() -> None:
    bursts = iter([Try(TOP_PER_S, TOP_PER_S, 5, TOP_PER_S // 50, TOP_PER_S)])
    assert search(lambda rate: next(bursts, attempt(rate)))["rate_per_s"] == TOP_PER_S
    limit = 30_000
    result = search(lambda rate: attempt(rate, path_per_s=limit, late=rate // 50), replace(EFFORT, most_tries=20))
    assert limit / 1.11 < result["rate_per_s"] <= limit


def test_the_summary_of_capacity_has_direct_first_and_then_the_fastest() -> None:
    values = {
        "slow": search(lambda rate: attempt(rate, path_per_s=10_000)),
        "direct": search(lambda rate: attempt(rate, sender_per_s=200_000)),
        "quick": search(lambda rate: attempt(rate, sender_per_s=100_000)),
    }
    rows = capacity.summary(values)
    assert [(row.name, row.n) for row in rows] == [("direct", 3), ("quick", 3), ("slow", 3)]
    assert highest(rows[1]) == "at least 100,000"
    assert highest(rows[2]) == f"{rows[2].rate_per_s:,}"


def test_the_summary_of_cost_compares_with_direct_in_the_same_round() -> None:
    def value(system_us: float, proxy_us: float | None = None) -> dict[str, Any]:
        memory = None if proxy_us is None else 8.0
        return {"system_us": system_us, "proxy_us": proxy_us, "proxy_memory_mib": memory}

    rows = cost.summary(
        {
            "direct, round 1": value(5),
            "a, b, round 1": value(8, 2),
            "a, b, round 2": value(19, 4),
            "direct, round 2": value(15),
            "a, b, round 3": value(30, 6),
        }
    )
    assert rows == [cost.Row("direct", 2, 10, 0, None, None), cost.Row("a, b", 3, 19, 3.5, 4, 8.0)]
