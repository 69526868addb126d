"""Many live flows and many mapped ports: they are really there, and traffic and swaps go on."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from harness.crowd import CROWDED, open_flows
from harness.scenario import Scenario
from harness.specs import PUBLIC, udp_ports
from harness.switch import SwapperSwitch, switch_for
from swapper import flows
from swapper.model import Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from harness.netns import Net

pytestmark = [pytest.mark.bench, pytest.mark.parametrize("netns_topology", [CROWDED], indirect=True)]

CLASSIC = Scenario(dataplane="classic", engine="iptables-nft")


def carried(scenario: Scenario, net: Net, folder: Path) -> SwapperSwitch:
    """The scenario's service, on blue."""
    switch = switch_for(scenario, CROWDED, net["host"], folder)
    assert isinstance(switch, SwapperSwitch)
    switch.begin()
    return switch


def known(net: Net) -> list[flows.Flow]:
    """The flows of the public port that classic's conntrack knows."""
    with net["host"].entered():
        return flows.by_public_port(Protocol.UDP, PUBLIC)


def test_every_flow_of_a_crowd_has_an_entry_of_its_own(netns_topology: Net, tmp_path: Path) -> None:
    carried(CLASSIC, netns_topology, tmp_path)
    open_flows(netns_topology, port=PUBLIC, flows=20_000, tracked=True)
    found = known(netns_topology)
    assert len({(flow.src, flow.sport) for flow in found}) == len(found) == 20_000
    open_flows(netns_topology, port=PUBLIC, flows=20_000, tracked=True)
    assert len(known(netns_topology)) == 20_000


def test_flows_that_a_flush_took_are_opened_again_to_the_new_backend(netns_topology: Net, tmp_path: Path) -> None:
    switch = carried(CLASSIC, netns_topology, tmp_path)
    open_flows(netns_topology, port=PUBLIC, flows=1_000, tracked=True)
    assert {flow.reply_sport for flow in known(netns_topology)} == {1001}
    switch.swap("green")
    assert known(netns_topology) == []
    open_flows(netns_topology, port=PUBLIC, flows=1_000, tracked=True)
    assert [flow.reply_sport for flow in known(netns_topology)] == [1002] * 1_000


def test_flows_that_nobody_tracks_are_missed(netns_topology: Net, tmp_path: Path) -> None:
    carried(Scenario(dataplane="stateless"), netns_topology, tmp_path)
    open_flows(netns_topology, port=PUBLIC, flows=1_000, tracked=False)
    with pytest.raises(RuntimeError, match="conntrack holds 0 entries, 1000 flows"):
        open_flows(netns_topology, port=PUBLIC, flows=1_000, tracked=True)


@pytest.mark.parametrize(
    ("dataplane", "engine", "count"),
    [("zones", "nftables", 10_000), ("stateless", "nftables", 1_000), ("zones", "iptables-nft", 1_000)],
)
def test_thousands_of_ports_are_carried_and_swapped(
    netns_topology: Net, tmp_path: Path, dataplane: str, engine: str, count: int
) -> None:
    switch = carried(Scenario(dataplane=dataplane, engine=engine, ports=count), netns_topology, tmp_path)
    ports = udp_ports(count)
    for port_set in ("blue", "green"):
        if port_set == "green":
            switch.swap(port_set)
        for public, internal in (ports[0], ports[count // 2], ports[-1]):
            exchange(netns_topology, public, internal[port_set])


def exchange(net: Net, public: int, internal: int) -> None:
    """A datagram from outside to the public port reaches the internal one, and is answered; TimeoutError if not."""
    with net["host"].entered():
        backend = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with net["outside"].entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with backend, client:
        backend.settimeout(2)
        client.settimeout(2)
        backend.bind(("", internal))
        client.connect((CROWDED.target("outside", 4), public))
        client.send(b"question")
        question, asker = backend.recvfrom(64)
        assert question == b"question"
        backend.sendto(b"answer", asker)
        assert client.recv(64) == b"answer"
