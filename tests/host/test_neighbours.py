"""What is not Swapper's stays as it is: other hosts' ports of the same number, other services, old engines."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.netns import Namespace, build
from harness.topology import OUTSIDE_AND_HOST
from swapper import flows
from swapper.config import load
from swapper.dataplane import for_service, open_dataplane
from swapper.model import DataplaneName, Engine, PortMap, PortSet, Protocol, Service, Swap, Target, UdpMode
from tests import support
from tests.host.test_protect import Sockets, answered

if TYPE_CHECKING:
    from harness.netns import Net

pytestmark = pytest.mark.root

SWAPPER = str(Path(sys.executable).with_name("swapper"))
PORTS = (PortMap(Protocol.UDP, 1000, Target(1001), Target(1002)),)
SO_NO_CHECK = 11  # socket(7) of Linux; Python has no name for it
every_ipset = pytest.mark.parametrize("engine", [Engine.IPTABLES_NFT, Engine.IPTABLES_LEGACY])
every_real = pytest.mark.parametrize(("name", "engine"), support.REAL, ids=support.IDS)


def swapper(host: Namespace, config: Path, *words: str) -> Any:
    return json.loads(host.run([SWAPPER, *words, "--config", str(config), "--json"]).stdout)


def ask_elsewhere(net: Net, sockets: Sockets, port: int) -> None:
    """A client on the host asks another host's port 1000, from a port that the service's drain knows too."""
    there = OUTSIDE_AND_HOST.source("outside", 4)
    server = sockets.udp(net, "outside", 4, 1000)
    client = sockets.udp(net, "host", 4, port)
    assert answered(server, client, (there, 1000)) == (there, 1000)


@every_real
@pytest.mark.parametrize("udp", UdpMode)
def test_another_hosts_port_of_the_same_number_is_left_alone(name: DataplaneName, engine: Engine, udp: UdpMode) -> None:
    if udp is UdpMode.DRAIN and name is DataplaneName.STATELESS:
        udp = UdpMode.CUT  # it has no drain; the cut is what it can be asked for
    with build(OUTSIDE_AND_HOST) as net, Sockets() as sockets:
        service = Service("game", PORTS, dataplane=name, engine=engine, udp=udp)
        with net["host"].entered():
            plane = open_dataplane(name, engine)
            plane.install(service, PortSet.BLUE)
            plane.observe(service)
        blue = sockets.udp(net, "host", 4, 1001)
        known = sockets.udp(net, "host", 4, 7777)
        here = OUTSIDE_AND_HOST.target("inside", 4)
        assert answered(blue, known, (here, 1000)) == (here, 1000)
        known.close()
        with net["host"].entered():
            plane.apply(Swap(service, PortSet.GREEN, udp))
        ask_elsewhere(net, sockets, 7777)


def test_a_backend_may_ask_another_hosts_public_port_from_its_own(netns_topology: Net) -> None:
    with netns_topology["host"].entered():
        open_dataplane(DataplaneName.ZONES, Engine.NFTABLES).install(Service("game", PORTS), PortSet.BLUE)
    with Sockets() as sockets:
        there = OUTSIDE_AND_HOST.source("outside", 4)
        server = sockets.udp(netns_topology, "outside", 4, 1000)
        backend = sockets.udp(netns_topology, "host", 4, 1001)
        backend.sendto(b"?", (there, 1000))
        assert server.recvfrom(64)[0] == b"?"


@every_real
@pytest.mark.parametrize("side", ["outside", "host"])
def test_datagrams_without_a_checksum_arrive_both_ways(name: DataplaneName, engine: Engine, side: str) -> None:
    with build(OUTSIDE_AND_HOST) as net, Sockets() as sockets:
        with net["host"].entered():
            open_dataplane(name, engine).install(Service("game", PORTS, dataplane=name, engine=engine), PortSet.BLUE)
        backend, client = sockets.udp(net, "host", 4, 1001), sockets.udp(net, side, 4)
        for sock in (backend, client):
            sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        where = (OUTSIDE_AND_HOST.target("outside", 4), 1000)
        assert answered(backend, client, where) == where


TOO_BIG = """
import socket, sys
from scapy.layers.inet import ICMP, IP, UDP
host, client, sport, dport = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
about = IP(src=host, dst=client, flags="DF", id=7) / UDP(sport=sport, dport=dport) / b"!"
packet = IP(src=client, dst=host) / ICMP(type=3, code=4, nexthopmtu=1000) / about
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).sendto(bytes(packet), (host, 0))
"""


@pytest.mark.parametrize(("name", "engine"), [(None, None), *support.REAL], ids=["direct", *support.IDS])
def test_only_classic_passes_on_that_a_path_takes_less(name: DataplaneName | None, engine: Engine | None) -> None:
    """A limit that README names; the direct path is the control."""
    with build(OUTSIDE_AND_HOST) as net, Sockets() as sockets:
        if name and engine:
            with net["host"].entered():
                open_dataplane(name, engine).install(Service("game", PORTS), PortSet.BLUE)
        backend, client = sockets.udp(net, "host", 4, 1001), sockets.udp(net, "outside", 4)
        host, outside = OUTSIDE_AND_HOST.target("outside", 4), OUTSIDE_AND_HOST.source("outside", 4)
        port = 1000 if name else 1001
        answered(backend, client, (host, port))
        ends = [host, outside, str(port), str(client.getsockname()[1])]
        net["outside"].run([sys.executable, "-c", TOO_BIG, *ends])
        learnt = "mtu 1000" in net["host"].run(["ip", "route", "get", outside]).stdout
        assert learnt is (name in (None, DataplaneName.CLASSIC))


@every_ipset
def test_a_command_killed_while_it_learnt_the_flows_has_moved_nothing(tmp_path: Path, engine: Engine) -> None:
    with build(support.LONELY) as net:
        config = support.configuration(tmp_path, DataplaneName.ZONES, engine, drain=True)
        swapper(net["host"], config, "apply")
        learn = "-p udp -j SET --add-set sw-game-b{} src,src --exist --timeout 10"
        flavour = engine.removeprefix("iptables-")
        for family, tool in ((4, f"iptables-{flavour}"), (6, f"ip6tables-{flavour}")):
            inet = "inet" if family == 4 else "inet6"
            net["host"].run(["ipset", "create", f"sw-game-b{family}", "hash:ip,port", "family", inet, "timeout", "10"])
            net["host"].run([tool, "-t", "raw", "-I", "SW-game", *learn.format(family).split()])
        assert swapper(net["host"], config, "swap", "game", "--to", "blue")["changed"] is False
        swapper(net["host"], config, "apply")
        (service,) = swapper(net["host"], config, "status")["services"]
        assert (service["in_sync"], service["kernel"]["active"]) == (True, "blue")
        with net["host"].entered():
            assert "sw-game" not in support.listing()
        assert swapper(net["host"], config, "swap", "game")["changed"] is True


@every_ipset
def test_remove_and_a_change_of_engine_end_a_drain_that_nobody_waits_for(tmp_path: Path, engine: Engine) -> None:
    other = Engine.IPTABLES_NFT if engine is Engine.IPTABLES_LEGACY else Engine.IPTABLES_LEGACY
    with build(support.LONELY) as net:
        config = support.configuration(tmp_path, DataplaneName.ZONES, engine, drain=True)
        with net["host"].entered():
            before = support.listing()
        for change in ("remove", "apply"):
            swapper(net["host"], config, "apply")
            with net["host"].entered():
                service = load(config).services["game"]
                plane = for_service(service)
                active = plane.observe(service).active
                assert active is not None
                plane.apply(Swap(service, active.other, UdpMode.DRAIN))
                assert "sw-game" in support.listing()
            if change == "apply":
                config = support.configuration(tmp_path, DataplaneName.ZONES, other, drain=True)
                swapper(net["host"], config, "apply")
                (report,) = swapper(net["host"], config, "status")["services"]
                assert (report["engine"], report["in_sync"], report["draining"]) == (other, True, None)
                with net["host"].entered():
                    assert "sw-game" not in support.listing()
            swapper(net["host"], config, "remove", "game")
            with net["host"].entered():
                assert support.listing() == before


@pytest.mark.parametrize("words", [("swap", "game"), ("apply",)], ids=["swap", "apply"])
@pytest.mark.parametrize("before", [Engine.NFTABLES, Engine.IPTABLES_LEGACY, Engine.IPTABLES_NFT])
def test_a_change_of_engine_leaves_nothing_on_the_old_one(
    tmp_path: Path, before: Engine, words: tuple[str, ...]
) -> None:
    after = Engine.IPTABLES_NFT if before is Engine.NFTABLES else Engine.NFTABLES
    with build(support.LONELY) as net:
        swapper(net["host"], support.configuration(tmp_path, DataplaneName.ZONES, before), "apply")
        config = support.configuration(tmp_path, DataplaneName.ZONES, after)
        swapper(net["host"], config, *words)
        (service,) = swapper(net["host"], config, "status")["services"]
        assert (service["engine"], service["in_sync"]) == (after, True)
        with net["host"].entered():
            assert not open_dataplane(DataplaneName.ZONES, before).uninstall("game")


@pytest.mark.parametrize("old", [Engine.IPTABLES_NFT, Engine.IPTABLES_LEGACY])
def test_a_swap_takes_out_what_a_killed_change_of_engine_left(tmp_path: Path, old: Engine) -> None:
    with build(support.LONELY) as net:
        config = support.configuration(tmp_path, DataplaneName.ZONES, Engine.NFTABLES)
        swapper(net["host"], config, "apply")
        with net["host"].entered():
            open_dataplane(DataplaneName.ZONES, old).install(load(config).services["game"], PortSet.BLUE)
        assert swapper(net["host"], config, "swap", "game")["changed"] is True
        with net["host"].entered():
            assert not open_dataplane(DataplaneName.ZONES, old).uninstall("game")


FOREIGN = [
    "-m set --match-set theirs src -j DROP",
    "-m time --datestop 2037-01-01T00:00:00 -j DROP",
    "-j SET --add-set theirs src",
    "-g SW-game.theirs",
]


@every_ipset
@pytest.mark.parametrize("words", FOREIGN, ids=["match-set", "datestop", "add-set", "goto"])
def test_a_foreign_rule_in_a_private_chain_is_a_fault_that_apply_repairs(
    tmp_path: Path, engine: Engine, words: str
) -> None:
    with build(support.LONELY) as net:
        config = support.configuration(tmp_path, DataplaneName.ZONES, engine)
        swapper(net["host"], config, "apply")
        tool = f"iptables-{engine.removeprefix('iptables-')}"
        net["host"].run(["ipset", "create", "theirs", "hash:ip"])
        net["host"].run([tool, "-t", "raw", "-N", "SW-game.theirs"])
        net["host"].run([tool, "-t", "raw", "-I", "SW-game", *words.split()])
        (service,) = swapper(net["host"], config, "status")["services"]
        assert service["why"] == ["the IPv4 rules of game are not those of the configuration"]
        assert swapper(net["host"], config, "apply")["services"][0]["repaired"] == service["why"]
        (service,) = swapper(net["host"], config, "status")["services"]
        assert service["in_sync"] is True


@pytest.mark.parametrize("zone", ["--zone mark", "--zone-orig 7"])
def test_zones_that_others_give_by_mark_or_direction_are_none_of_ours(tmp_path: Path, zone: str) -> None:
    with build(support.LONELY) as net:
        net["host"].run(["iptables-nft", "-t", "raw", "-A", "PREROUTING", "-j", "CT", *zone.split()])
        config = support.configuration(tmp_path, DataplaneName.ZONES, Engine.IPTABLES_NFT)
        assert swapper(net["host"], config, "apply")["services"][0]["changed"] is True


THEIRS = {
    "rule": "add rule ip {} PREROUTING fib daddr type local accept",
    "expression": "add rule ip {} PREROUTING meta mark set 5",
}


@pytest.mark.parametrize("table", ["raw", "nat"])
@pytest.mark.parametrize(
    ("what", "said"),
    [("rule", "see: nft list table ip {}"), ("expression", "iptables cannot be read:")],
    ids=["rule", "expression"],
)
def test_rules_that_iptables_cannot_read_are_told_of_and_not_taken_for_none(
    tmp_path: Path, table: str, what: str, said: str
) -> None:
    with build(support.LONELY) as net:
        host = net["host"]
        config = support.configuration(tmp_path, DataplaneName.ZONES, Engine.IPTABLES_NFT)
        swapper(host, config, "apply")
        host.run(["nft", "-f", "-"], stdin=THEIRS[what].format(table))
        for words in (("status",), ("apply",), ("swap", "game"), ("remove", "game")):
            done = host.run([SWAPPER, *words, "--config", str(config)], check=False)
            assert done.returncode == 4, (words, done.stderr)
            assert said.format(table) in done.stderr
        assert (tmp_path / "state" / "mapped.txt").read_text() == "game blue 1\n"


def test_tables_that_iptables_cannot_read_are_no_matter_to_the_nftables_engine(tmp_path: Path) -> None:
    with build(support.LONELY) as net:
        net["host"].run(
            ["nft", "-f", "-"],
            stdin="add table ip nat\n" + "add chain ip nat PREROUTING\n" + THEIRS["rule"].format("nat"),
        )
        config = support.configuration(tmp_path, DataplaneName.ZONES, Engine.NFTABLES)
        for words in (("apply",), ("swap", "game"), ("remove", "game")):
            swapper(net["host"], config, *words)


@pytest.mark.parametrize("engine", [Engine.IPTABLES_NFT, Engine.IPTABLES_LEGACY])
def test_classic_after_a_drain_of_zones_leaves_nothing_of_it(tmp_path: Path, engine: Engine) -> None:
    with build(support.LONELY) as net:
        classic = support.configuration(tmp_path, DataplaneName.CLASSIC, engine)
        swapper(net["host"], classic, "apply")
        with net["host"].entered():
            before = support.listing()
        drain = support.configuration(tmp_path, DataplaneName.ZONES, engine, drain=True)
        swapper(net["host"], drain, "apply")
        with net["host"].entered():
            service = load(drain).services["game"]
            plane = for_service(service)
            plane.observe(service)
            plane.apply(Swap(service, PortSet.GREEN, UdpMode.DRAIN))  # and nobody waits for its end
            plane.apply(Swap(service, PortSet.BLUE, UdpMode.DRAIN))
            assert "sw-game" in support.listing()
        for _ in range(2):
            swapper(net["host"], classic, "apply")
            with net["host"].entered():
                assert support.listing() == before


def test_a_repeated_apply_deletes_no_flow_of_the_classic_dataplane(tmp_path: Path) -> None:
    with build(support.LONELY) as net, Sockets() as sockets:
        config = support.configuration(tmp_path, DataplaneName.CLASSIC, Engine.IPTABLES_NFT)
        swapper(net["host"], config, "apply")
        backend, client = sockets.udp(net, "host", 4, 1001), sockets.udp(net, "host", 4)
        answered(backend, client, ("127.0.0.1", 1000))
        swapper(net["host"], config, "apply")
        with net["host"].entered():
            assert len(flows.by_public_port(Protocol.UDP, 1000)) == 1


def test_using_nftables_makes_no_legacy_tables(tmp_path: Path) -> None:
    with build(support.LONELY) as net:
        config = support.configuration(tmp_path, DataplaneName.ZONES, Engine.NFTABLES)
        for words in (("apply",), ("swap", "game"), ("remove", "game")):
            swapper(net["host"], config, *words)
        assert net["host"].run(["cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]).stdout == ""


@pytest.mark.parametrize("engine", [Engine.IPTABLES_NFT, Engine.IPTABLES_LEGACY])
def test_a_service_named_like_anothers_drain_does_not_meet_it(engine: Engine) -> None:
    with build(support.LONELY) as net, net["host"].entered():
        plane = open_dataplane(DataplaneName.ZONES, engine)
        one = Service("game", PORTS, udp=UdpMode.DRAIN)
        other = replace(one, name="game-stay", ports=(PortMap(Protocol.UDP, 2000, Target(2001), Target(2002)),))
        for service in (one, other):
            plane.install(service, PortSet.BLUE)
            plane.observe(service)
        plane.apply(Swap(one, PortSet.GREEN, UdpMode.DRAIN))
        plane.cut(one)
        assert plane.observe(one).intact
        assert plane.observe(other).intact
