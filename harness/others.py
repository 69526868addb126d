"""Rules that others keep on a host, put in the way of a run: a closed firewall, and chains as Docker makes them.

Pure: text only. The firewall drops what it does not know, accepts what is established, and the internal ports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DOCKER", "firewall"]

# For `iptables-nft-restore --noflush`, as a Docker Engine with one published TCP port leaves them.
DOCKER: Final = """\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8443 -j DNAT --to-destination 172.17.0.2:443
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j RETURN
COMMIT
"""


def firewall(udp_ports: Iterable[int], tcp_ports: Iterable[int]) -> str:
    """An nftables table whose INPUT drops all but the established, loopback, neighbour discovery and these ports."""
    udp, tcp = (", ".join(map(str, ports)) for ports in (udp_ports, tcp_ports))
    return (
        "table inet firewall {\n"
        "  chain input { type filter hook input priority filter; policy drop;\n"
        "    ct state established,related accept\n"
        "    iif lo accept\n"
        "    meta l4proto icmpv6 accept\n"
        f"    udp dport {{ {udp} }} accept\n"
        f"    tcp dport {{ {tcp} }} accept\n"
        "  }\n}\n"
    )
