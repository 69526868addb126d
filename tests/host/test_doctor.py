"""What `doctor` finds on a host that is broken in one way, and that its own mend makes it silent again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.netns import Namespace, build
from swapper import config as configs
from swapper.config import Config
from swapper.doctor import CHECKS, Finding, Level, examine
from swapper.doctor.services import filled
from swapper.model import BackendKind, DataplaneName, Engine, PortMap, Protocol, Target, UdpMode
from swapper.operations import Host
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

ZONES, NFT, IPT = DataplaneName.ZONES, Engine.NFTABLES, Engine.IPTABLES_NFT
BRIDGES = (
    "ip link add br0 up type bridge",
    "ip link add wan0 up type bridge",
    "ip addr add 172.30.0.1/24 dev br0",
    "ip route add 172.30.0.0/16 dev wan0",
)


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host of its own, in which the test lives."""
    with build(support.LONELY) as net, net["host"].entered():
        yield net["host"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configs.load(support.configuration(tmp_path, ZONES, NFT))


def having(config: Config, **changes: Any) -> Config:
    """The configuration with its one service changed."""
    return replace(config, services={"game": replace(config.services["game"], **changes)})


def found(config: Config, check: str) -> list[Finding]:
    """What one check finds wrong."""
    findings = [finding for finding in examine(config) if finding.check == check]
    assert findings
    return [finding for finding in findings if finding.level is not Level.OK]


def the(config: Config, check: str, level: Level) -> Finding:
    """The one thing that a check finds wrong."""
    (finding,) = found(config, check)
    assert finding.level is level, finding
    return finding


def mends(config: Config, finding: Finding) -> bool:
    """Whether nothing is wrong any more once its own mend was run."""
    support.commands(finding.mend)
    return found(config, finding.check) == []


@pytest.mark.usefixtures("host")
def test_a_host_in_order_is_told_so_check_by_check(config: Config) -> None:
    Host(config).apply(config.services["game"])
    findings = examine(config)
    assert [(finding.check, finding.level, finding.mend) for finding in findings] == [
        (check.name, Level.OK, "") for check in CHECKS
    ]


def examined_without(host: Namespace, config: Config, capability: str) -> dict[str, str]:
    """Level and mend of what a process without a capability finds wrong."""
    script = (
        "import sys; from pathlib import Path; from swapper import config, doctor\n"
        "for one in doctor.examine(config.load(Path(sys.argv[1]))):\n"
        " print(one.check, f'{one.level}, {one.mend}', sep='=')"
    )
    bound = ["setpriv", f"--bounding-set=-{capability}", sys.executable, "-c", script, str(config.path)]
    told = dict(line.split("=", 1) for line in host.run(bound).stdout.splitlines())
    assert list(told) == [check.name for check in CHECKS]
    return {check: said for check, said in told.items() if said != "ok, "}


def test_a_user_without_rights_is_told_to_come_back_with_them(host: Namespace, config: Config) -> None:
    assert examined_without(host, config, "net_admin") == {
        "permissions": "fail, sudo swapper doctor",
        **{check.name: "warn, sudo swapper doctor" for check in CHECKS if check.privileged},
    }


def test_rules_are_not_tried_where_no_namespace_can_be_made(host: Namespace, config: Config) -> None:
    Host(config).apply(config.services["game"])
    assert examined_without(host, config, "sys_admin") == {"kernel": "warn, sudo swapper doctor"}


@pytest.mark.usefixtures("host")
def test_an_engine_that_is_not_whole_is_found(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    legacy = having(config, engine=Engine.IPTABLES_LEGACY)
    assert found(legacy, "tools") == found(legacy, "kernel") == []
    (tmp_path / "iptc.py").write_text("raise ImportError('no iptc here')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "iptc", raising=False)
    finding = the(legacy, "tools", Level.FAIL)
    assert "python-iptables (no iptc here)" in finding.found
    assert finding.mend == "apt-get install -y iptables && pip install 'portswap[legacy]'"
    assert "its rules do not load here" in the(legacy, "kernel", Level.FAIL).found


@pytest.mark.usefixtures("host")
def test_a_check_that_cannot_be_made_is_a_warning(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    finding = the(config, "firewall", Level.WARN)
    assert finding.found.startswith("could not be checked: ")


@pytest.mark.usefixtures("host")
def test_a_drain_on_iptables_needs_ipset(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    draining = having(config, engine=IPT, udp=UdpMode.DRAIN)
    assert found(draining, "tools") == []
    monkeypatch.setenv("PATH", "/nowhere")
    assert the(draining, "tools", Level.FAIL).mend == "apt-get install -y ipset"
    assert found(having(config, engine=IPT), "tools") == []
    assert found(having(config, udp=UdpMode.DRAIN), "tools") == []


@pytest.mark.usefixtures("host")
def test_a_container_needs_an_engine_that_answers(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    finding = the(having(config, backend=BackendKind.DOCKER), "tools", Level.FAIL)
    assert "no Docker Engine answers" in finding.found
    assert finding.mend == "systemctl start docker"
    assert found(config, "tools") == []


@pytest.mark.usefixtures("host")
def test_rules_that_the_kernel_lacks_are_found_without_a_trace(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classic = having(config, dataplane=DataplaneName.CLASSIC, engine=IPT)
    before = support.listing()
    assert found(classic, "kernel") == []
    assert found(config, "kernel") == []
    assert support.listing() == before
    lacking = tmp_path / "iptables-nft-restore"
    lacking.write_text(
        "#!/bin/sh\necho 'Extension addrtype revision 0 not supported, missing kernel module?' >&2; exit 1"
    )
    lacking.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    finding = the(classic, "kernel", Level.FAIL)
    assert "missing kernel module" in finding.found
    assert finding.mend.startswith("modprobe -a xt_CT ")


@pytest.mark.usefixtures("host")
def test_bridged_backends_need_forwarding_and_a_way_from_loopback(config: Config) -> None:
    support.commands(*BRIDGES, "sysctl -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=1")
    bridged = having(config, ports=support.BRIDGED_PORTS)
    assert found(config, "forwarding") == found(config, "loopback") == []
    finding = the(bridged, "forwarding", Level.FAIL)
    assert "the IPv4 backends of game" in finding.found
    assert mends(bridged, finding)
    finding = the(bridged, "loopback", Level.WARN)
    assert finding.mend == "sysctl -w net.ipv4.conf.br0.route_localnet=1"
    assert mends(bridged, finding)


@pytest.mark.usefixtures("host")
def test_internal_ports_that_clients_may_take_are_to_be_reserved(config: Config) -> None:
    high = having(config, ports=(PortMap(Protocol.UDP, 1000, Target(40001), Target(40002)),))
    assert found(config, "local ports") == []
    finding = the(high, "local ports", Level.WARN)
    assert "internal ports 40001,40002 lie in" in finding.found
    assert mends(high, finding)


@pytest.mark.parametrize(
    ("count", "live", "levels"),
    [
        (500, 500, []),
        (501, 0, [Level.WARN]),
        (801, 0, [Level.FAIL]),
        (400, 601, [Level.FAIL]),
        (600, 600, [Level.WARN, Level.FAIL]),
    ],
)
def test_conntrack_needs_room_for_a_cut(count: int, live: int, levels: list[Level]) -> None:
    problems = list(filled(count, 1000, live=live))
    assert [problem.level for problem in problems] == levels
    assert all(problem.mend.startswith("sysctl -w net.netfilter.nf_conntrack_max=") for problem in problems)


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(("port", "there"), [(1000, True), (1002, True), (1003, False)])
def test_a_docker_proxy_is_found_where_it_stands(config: Config, port: int, there: bool) -> None:
    # Python under that name, reading its standard input; what comes after its script are words of docker-proxy.
    argv = ["docker-proxy", "-c", "print(flush=True); input()", "-proto", "udp", "-host-port", str(port)]
    proxy = subprocess.Popen(argv, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with proxy:
        assert proxy.stdout is not None
        proxy.stdout.readline()
        try:
            assert [one.found for one in found(config, "proxy")] == (
                [f"game: docker-proxy stands before udp port {port}"] if there else []
            )
            with build(support.LONELY) as elsewhere, elsewhere["host"].entered():
                assert found(config, "proxy") == []
        finally:
            proxy.communicate(b"\n")


@pytest.mark.usefixtures("host")
def test_who_listens_on_a_public_port_is_named(config: Config) -> None:
    with socket.create_server(("127.0.0.1", 8080)):
        finding = the(config, "proxy", Level.WARN)
        assert f"process {os.getpid()} (" in finding.found
        assert "listens on public tcp port 8080" in finding.found
    assert found(config, "proxy") == []


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("address", ["0.0.0.0", "::"])  # noqa: S104 - in a namespace of its own
def test_an_open_internal_port_is_found_where_nothing_protects_it(config: Config, address: str) -> None:
    unprotected = having(config, protect=False)
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(kind, socket.SOCK_DGRAM) as backend:
        backend.bind((address, 1001))
        finding = the(unprotected, "exposure", Level.WARN)
        assert "outsiders reach internal udp port 1001" in finding.found
        assert "protect = true" in finding.mend
        assert found(config, "exposure") == []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as backend:
        backend.bind(("127.0.0.1", 1001))
        assert found(unprotected, "exposure") == []


CLOSED = {
    "nft, by policy": "nft 'table inet f { chain in { type filter hook input priority 0; policy drop; "
    "ct state vmap { established : accept, invalid : drop }; iif lo accept; meta l4proto { icmp, icmpv6 } accept; "
    "tcp dport { 22, 443 } accept; }; }'",
    "nft, by its last word": "nft 'table inet f { chain in { type filter hook input priority 0; "
    "iifname vmap { lo : accept, eth0 : jump wan }; reject with icmpx admin-prohibited; }; chain wan { }; }'",
    "iptables-nft": "iptables-nft -P INPUT DROP\niptables-nft -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n"
    "iptables-nft -A INPUT -p tcp -m multiport --dports 22,1000:1003 -j ACCEPT\niptables-nft -A INPUT -i lo -j ACCEPT",
    "ip6tables-legacy": "ip6tables-legacy -A INPUT -p ipv6-icmp -j ACCEPT\nip6tables-legacy -A INPUT -j REJECT",
}


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("rules", CLOSED.values(), ids=CLOSED)
def test_a_firewall_that_closes_internal_ports_is_found_and_opened(config: Config, rules: str) -> None:
    assert found(config, "firewall") == []
    support.commands(rules)
    finding = the(config, "firewall", Level.FAIL)
    assert "drops what comes to its internal ports udp 1001, udp 1002" in finding.found
    assert mends(config, finding)


OPEN = {
    "translated flows": "nft 'table inet f { chain in { type filter hook input priority 0; policy drop; "
    "ct status dnat accept; }; }'",
    "one interface": "nft 'table inet f { chain in { type filter hook input priority 0; policy drop; "
    "iifname eth0 accept; }; }'",
    "a chain of its own": "nft 'table inet f { "
    "chain game { meta l4proto { tcp, udp } th dport { 1000-1999, 8081-8082 } accept; }; "
    "chain in { type filter hook input priority 0; policy drop; udp dport vmap { 1001 : goto game }; jump game; }; }'",
    "a map that has a name": "nft 'table inet f { map zones { type ifname : verdict; }; "
    "chain in { type filter hook input priority 0; iifname vmap @zones; drop; }; }'",
    "a drop of somebody": "iptables-nft -N LOGDROP\niptables-nft -A LOGDROP -j DROP\n"
    "iptables-nft -A INPUT -s 192.0.2.1 -j LOGDROP",
    "translated flows, on iptables": "iptables-legacy -P INPUT DROP\n"
    "iptables-legacy -A INPUT -m conntrack --ctstate RELATED,DNAT -j ACCEPT",
    "a drop of somebody, on nft": "nft 'table inet f { chain in { type filter hook input priority 0; "
    "ip saddr 192.0.2.1 drop; }; }'",
    "forwarding alone": "iptables-nft -P FORWARD DROP",
}


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("rules", OPEN.values(), ids=OPEN)
def test_a_firewall_that_may_let_them_in_is_not_cried_over(config: Config, rules: str) -> None:
    support.commands(rules)
    assert found(config, "firewall") == []


RIVALS = {
    "nft": "nft 'table ip theirs { chain nat { type nat hook prerouting priority dstnat; "
    "udp dport {} redirect to :77; }; }'",
    "Docker": "iptables-nft -t nat -N DOCKER\n"
    "iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n"
    "iptables-nft -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER\n"
    "iptables-nft -t nat -A DOCKER ! -i docker0 -p udp --dport {} -j DNAT --to-destination 172.17.0.2:53",
    "legacy": "iptables-legacy -t nat -A PREROUTING -p udp --dport {} -j REDIRECT --to-ports 77",
}


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(("name", "engine"), support.REAL, ids=support.IDS)
def test_swapper_s_own_rules_are_not_taken_for_others(config: Config, name: DataplaneName, engine: Engine) -> None:
    ours = having(config, dataplane=name, engine=engine)
    Host(ours).apply(ours.services["game"])
    assert [finding for finding in examine(ours) if finding.level is not Level.OK] == []


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("rules", RIVALS.values(), ids=RIVALS)
def test_another_translation_of_a_public_port_is_found_and_taken_out(config: Config, rules: str) -> None:
    Host(config).apply(config.services["game"])
    support.commands(rules.replace("{}", "1005"))
    assert found(config, "rule order") == []
    support.commands(rules.replace("{}", "1000").replace("nft -t nat -N DOCKER", "nft -t nat -F DOCKER"))
    finding = the(config, "rule order", Level.FAIL)
    assert "another rule translates udp port 1000" in finding.found
    assert mends(config, finding)


@pytest.mark.usefixtures("host")
def test_a_state_that_cannot_be_trusted_is_found(config: Config) -> None:
    assert found(config, "state") == []
    config.state_dir.mkdir()
    (config.state_dir / "mapped.txt").write_text("game gre")
    finding = the(config, "state", Level.FAIL)
    assert "half-written line" in finding.found
    assert finding.mend == f"mv {config.state_dir}/mapped.txt {config.state_dir}/mapped.txt.bad && swapper apply"


@pytest.mark.usefixtures("host")
def test_a_folder_that_cannot_be_one_is_found(config: Config) -> None:
    config.run_dir.write_text("in the way")
    finding = the(config, "state", Level.FAIL)
    assert finding.found == f"{config.run_dir} is no folder"
    assert mends(config, finding)


@pytest.mark.usefixtures("host")
def test_a_kernel_that_does_not_do_what_is_meant_is_found(config: Config) -> None:
    finding = the(config, "in sync", Level.FAIL)
    assert finding.found.startswith("game: ")
    assert finding.mend == "swapper apply game"
    Host(config).apply(config.services["game"])
    assert found(config, "in sync") == []
