"""The histogram of round trips: quantiles to 1 %, whatever is put in, however it is put together."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.histogram import Histogram

TIMES_NS = st.lists(st.integers(1, 10**10), min_size=1, max_size=200)
SHARES = st.sampled_from((0.0, 0.5, 0.9, 0.99, 0.999, 1.0))


@given(TIMES_NS, SHARES)
def test_a_quantile_is_within_one_per_cent_of_the_exact_one(times_ns: list[int], share: float) -> None:
    exact_us = np.quantile(times_ns, share, method="inverted_cdf") / 1000
    assert Histogram.of(times_ns).quantile_us(share) == pytest.approx(exact_us, rel=0.01)


@given(st.lists(TIMES_NS, min_size=1, max_size=5))
def test_parts_add_up_to_the_whole(parts: list[list[int]]) -> None:
    whole = Histogram.of([time_ns for part in parts for time_ns in part])
    assert Histogram.merged(map(Histogram.of, parts)) == whole
    assert whole.n == sum(map(len, parts))


@given(TIMES_NS)
def test_it_comes_back_from_json_as_it_was(times_ns: list[int]) -> None:
    found = Histogram.of(times_ns)
    assert Histogram.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="0 ns is no time"):
        Histogram.of([70, 0])
    with pytest.raises(ValueError, match="cannot be added"):
        Histogram.from_json({"unit_us": 1.0, "growth": 1.01, "counts": {}})
    with pytest.raises(ValueError, match="quantile of nothing"):
        Histogram().quantile_us(0.5)
