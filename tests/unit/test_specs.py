"""What the workers of a run are told."""

from __future__ import annotations

from harness.scenario import Scenario
from harness.specs import linger_ms


def test_clients_listen_until_the_slowest_reply_has_come() -> None:
    quick, slow = Scenario(), Scenario(delay_ms=1000, service_ms=50)
    assert linger_ms(slow) - linger_ms(quick) == 2 * 1000 + 50
