"""When a drain is over."""

from __future__ import annotations

import pytest

from swapper.drain import Drain, Verdict


@pytest.mark.parametrize(
    ("left", "now_s", "verdict"),
    [
        (3, 9.9, Verdict.WAIT),
        (3, 10.0, Verdict.EXPIRED),
        (0, 5.0, Verdict.DRAINED),
        (0, 11.0, Verdict.DRAINED),
    ],
)
def test_a_drain_waits_for_its_flows_until_its_deadline(left: int, now_s: float, verdict: Verdict) -> None:
    assert Drain(deadline_s=10.0).verdict(left, now_s=now_s) is verdict


def test_what_remains_is_never_negative() -> None:
    assert Drain(deadline_s=10.0).remaining_s(now_s=12.0) == 0.0
    assert Drain(deadline_s=10.0).remaining_s(now_s=7.5) == 2.5
