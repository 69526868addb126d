"""What the workers of a run are told."""

from __future__ import annotations

from harness.scenario import Scenario
from harness.specs import linger_ms, tcp_client
from harness.topology import OUTSIDE_AND_HOST


def test_clients_listen_until_the_slowest_reply_has_come() -> None:
    quick, slow = Scenario(), Scenario(delay_ms=1000, service_ms=50)
    assert linger_ms(slow) - linger_ms(quick) == 2 * 1000 + 50


def test_a_connection_waits_the_longer_for_its_answer_the_rarer_connections_are() -> None:
    waits_ms = [
        tcp_client(Scenario(tcp=True, tcp_new_every_ms=every_ms), OUTSIDE_AND_HOST, "outside", 4, run=1)["timeout_ms"]
        for every_ms in (20, 200, 500, 2000)
    ]
    assert waits_ms == [2000, 2000, 4000, 6000]
