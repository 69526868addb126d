"""Rules, sets and zones of others survive everything that Swapper does, and come out as they went in."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from harness.netns import build
from swapper.model import DataplaneName, Engine
from tests import support

pytestmark = pytest.mark.root

SWAPPER = str(Path(sys.executable).with_name("swapper"))

FIREWALLD = """
table inet firewalld {
  map policies { type ifname : verdict; elements = { "lo" : accept }; }
  set helpers { type inet_service; elements = { 5060, 5061 }; }
  chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept;
    ct state invalid drop
    udp dport @helpers ct zone set 7
  }
  chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    iifname vmap @policies
    udp dport { 1001, 1002 } accept
  }
  chain nat_POSTROUTING { type nat hook postrouting priority srcnat + 10; policy accept;
    oifname "docker0" masquerade
  }
}
table inet swapperish {
  map zone_of { typeof udp dport : ct zone; elements = { 1000 : 9 }; }
  chain raw { type filter hook prerouting priority raw; policy accept;
    udp dport 4242 ct zone set udp dport map @zone_of
  }
}
table ip swapper_zones {
  chain theirs { udp dport 1000 accept
  }
}
"""


def on_iptables(tool: str, four: bool) -> list[str]:
    """Docker-like chains, a closed INPUT, and somebody's own rules in raw and nat."""
    host = "172.17.0.2" if four else "[fd00:17::2]"
    bare, net = ("172.17.0.2/32", "172.17.0.0/16") if four else ("fd00:17::2/128", "fd00:17::/64")
    return [
        f"{tool} -w {rest}"
        for rest in (
            "-t nat -N DOCKER",
            "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
            "-t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER"
            if four
            else "-t nat -A OUTPUT ! -d ::1 -m addrtype --dst-type LOCAL -j DOCKER",
            f"-t nat -A POSTROUTING -s {net} ! -o docker0 -j MASQUERADE",
            f"-t nat -A DOCKER ! -i docker0 -p tcp --dport 8443 -j DNAT --to-destination {host}:443",
            "-t filter -N DOCKER",
            "-t filter -N DOCKER-USER",
            "-t filter -A FORWARD -j DOCKER-USER",
            "-t filter -A DOCKER-USER -j RETURN",
            f"-t filter -A DOCKER -d {bare} ! -i docker0 -o docker0 -p tcp --dport 443 -j ACCEPT",
            "-t filter -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "-t filter -A INPUT -i lo -j ACCEPT",
            "-t filter -A INPUT -p udp -m multiport --dports 1001,1002 -j ACCEPT",
            "-t filter -P INPUT DROP",
            f"-t raw -A PREROUTING -d {bare} ! -i docker0 -j DROP",
            "-t raw -A PREROUTING -p udp --dport 5060 -j CT --zone 5",
            "-t raw -A OUTPUT -p udp --dport 53 -j CT --notrack",
        )
    ]


IPSETS = ["ipset create f2b-sshd hash:ip timeout 600", "ipset create sw-theirs hash:ip", "ipset add sw-theirs 10.0.0.1"]


@pytest.mark.parametrize(("name", "engine"), support.REAL, ids=support.IDS)
def test_what_others_put_there_is_there_afterwards(name: DataplaneName, engine: Engine, tmp_path: Path) -> None:
    rules = tmp_path / "theirs.nft"
    rules.write_text(FIREWALLD)
    config = support.configuration(tmp_path, name, engine)
    drained = support.configuration(tmp_path, name, engine, drain=True)
    with build(support.LONELY) as net, net["host"].entered():
        host = net["host"]
        support.commands(f"nft -f {rules}", *IPSETS)
        for flavour in support.FLAVOURS:
            support.commands(*on_iptables(flavour, four=flavour.startswith("iptables")))
        before = support.listing()
        assert before.count("DOCKER-USER") > 8
        for path, words in ((config, "apply"), (config, "swap game"), (drained, "swap game"), (config, "status")):
            host.run([SWAPPER, *words.split(), "--config", str(path)])
            now = Counter(support.listing().splitlines())
            assert Counter(before.splitlines()) - now == Counter()
        assert support.listing() != before
        host.run([SWAPPER, "remove", "game", "--config", str(config)])
        assert support.listing() == before
