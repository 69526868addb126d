"""The long proofs: hundreds of swaps in one stream, each technique. `./dev soak` runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.matrix import soak

if TYPE_CHECKING:
    from harness.plugin import Play
    from harness.scenario import Scenario

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]  # a slow machine makes every swap


@pytest.mark.parametrize("scenario", soak(), ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_two_hundred_swaps_in_a_row_lose_nothing(scenario: Scenario, swap_scenario: Play) -> None:
    record = swap_scenario(scenario)
    assert record.ledger is not None
    assert len(record.swaps_ns) == 200
    assert record.ledger.scheduled >= 400_000
