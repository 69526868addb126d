"""The whole matrix as tests: what is promised to lose nothing loses nothing, and every control shows its effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.matrix import full
from harness.netem import is_there

if TYPE_CHECKING:
    from harness.plugin import Play
    from harness.scenario import Scenario

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("scenario", full(netem=is_there()), ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_every_datagram_has_the_fate_that_is_promised(scenario: Scenario, swap_scenario: Play) -> None:
    swap_scenario(scenario)
