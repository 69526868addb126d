"""What a bad link is told to do, and how its count is read."""

from __future__ import annotations

import pytest

from harness.netem import counted, is_there, says_absent, script
from harness.topology import PRESETS

# tc of iproute2 6.1, `tc -s -j qdisc show`.
LISTING = """[
{"kind":"prio","handle":"1:","root":true,"refcnt":2,"options":{"bands":4,"priomap":[1,2,2,2,1,2,0,0,1,1,1,1,1,1,1,1],
"multiqueue":false},"bytes":9,"packets":2005,"drops":21,"overlimits":0,"requeues":0,"backlog":0,"qlen":0},
{"kind":"netem","handle":"8001:","parent":"1:4","options":{"limit":100000,"delay":{"delay":0.02,"jitter":0,
"correlation":0},"loss-random":{"loss":0.01,"correlation":0},"ecn":false,"gap":0},"bytes":9,"packets":1979,"drops":21,
"overlimits":0,"requeues":3,"backlog":0,"qlen":0}]"""


def test_a_link_is_told_only_what_it_is_to_do_and_only_to_udp() -> None:
    assert script("to-host", delay_ms=20, loss_percent=0.5).splitlines() == [
        "qdisc add dev to-host root handle 1: prio bands 4",
        "qdisc add dev to-host parent 1:4 netem limit 100000 delay 20ms loss 0.5%",
        "filter add dev to-host parent 1: protocol ip prio 1 u32 match ip protocol 17 0xff flowid 1:4",
        "filter add dev to-host parent 1: protocol ipv6 prio 2 u32 match ip6 protocol 17 0xff flowid 1:4",
    ]
    assert " netem limit 100000 delay 20ms reorder 5%\n" in script("to-host", delay_ms=20, reorder_percent=5)


def test_what_netem_counts_is_told_from_what_others_passed() -> None:
    assert counted(LISTING) == {"passed": 1979, "dropped": 21, "overtook": 3}


@pytest.mark.parametrize(
    ("said", "absent"),
    [
        ("Error: Specified qdisc kind is unknown.\nCommand failed -:2", True),
        ("Error: TC classifier not found.\nCommand failed -:3", True),
        ("RTNETLINK answers: Operation not supported\nCommand failed -:1", True),
        ("RTNETLINK answers: Operation not permitted\nCommand failed -:1", False),
    ],
)
def test_a_kernel_that_lacks_netem_is_told_from_one_that_fails(said: str, absent: bool) -> None:
    assert says_absent(said) is absent


def test_a_host_without_tc_has_no_netem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert not is_there.__wrapped__()


def test_every_topology_has_a_link_that_clients_outside_come_by() -> None:
    far = {name: topology.outside_link().b.node for name, topology in PRESETS.items()}
    assert far == {"outside-and-host": "host", "routed": "router", "bridged": "host"}
