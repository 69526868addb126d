"""`stateless` on nftables: UDP ports are rewritten both ways by two maps, and conntrack never sees the datagrams.

There is no table to fill or to flush, and a swap is one map element a port. It does not know its flows, so it cannot
drain, and it rewrites ports on this host only. TCP goes by DNAT and conntrack as ever.
"""

from __future__ import annotations

import time

from swapper.dataplane.base import Observation
from swapper.dataplane.common_nft import (
    COMMON_CHAINS,
    COMMON_MAPS,
    PROTECT_RULES,
    fixed_elements,
    needs_nat,
    tcp_elements,
)
from swapper.dataplane.libnftables import Nftables
from swapper.dataplane.liveflows import tcp_flows
from swapper.dataplane.nfttable import Element, Extension, NftTable
from swapper.model import DataplaneName, Engine, PortSet, Protocol, Service, Swap

__all__ = ["TABLE", "Stateless"]

TABLE = "swapper_stateless"
SINCE = "5.4"  # `delete @seen4` in a rule (nft_dynset.c)

# nftables would turn "no checksum" (0, IPv4 only: RFC 768) into a wrong one, so such a datagram is given its 0 again;
# the rule after that then finds nothing to rewrite.
# A health probe asks an internal port and must be answered from it, so its own packet notes its address and port in
# `seen4` or `seen6`, and replies to those are left alone until the same address and port asks a public port. Only
# the host itself can reach a protected port, so its notes concern nobody else: `request_of` and `reply_of` spare
# outsiders the look.
BODY = f"""\
  map internal {{ typeof udp dport : udp dport; }}
  map public {{ typeof udp sport : udp sport; }}
  map request_of {{ typeof udp dport : verdict; }}
  map reply_of {{ typeof udp sport : verdict; }}
  set seen4 {{ typeof ip daddr . udp dport . udp sport; size 65536; flags dynamic,timeout; timeout 5s; }}
  set seen6 {{ typeof ip6 daddr . udp dport . udp sport; size 65536; flags dynamic,timeout; timeout 5s; }}
  set probed {{ typeof udp dport; }}
{COMMON_MAPS}
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iif lo accept
    udp dport vmap @request_of
{PROTECT_RULES}
    udp dport @probed fib daddr type local jump note_probe
  }}
  chain output {{
    type filter hook output priority raw; policy accept;
    udp sport vmap @reply_of
    udp dport @served goto request_forgetting_probes
    udp dport @probed fib daddr type local jump note_probe
  }}
  chain request {{
    udp checksum 0 fib daddr type local notrack udp dport set udp dport map @internal udp checksum set 0
    fib daddr type local notrack udp dport set udp dport map @internal
  }}
  chain request_forgetting_probes {{
    jump request
    delete @seen4 {{ ip saddr . udp sport . udp dport }} accept
    delete @seen6 {{ ip6 saddr . udp sport . udp dport }}
  }}
  chain reply {{
    oif lo goto reply_unless_probed
    goto to_public
  }}
  chain reply_unless_probed {{
    ip daddr . udp dport . udp sport @seen4 return
    ip6 daddr . udp dport . udp sport @seen6 return
    goto to_public
  }}
  chain to_public {{
    udp checksum 0 notrack udp sport set udp sport map @public udp checksum set 0
    notrack udp sport set udp sport map @public oif != lo accept
  }}
  chain note_probe {{
    update @seen4 {{ ip saddr . udp sport . udp dport }}
    update @seen6 {{ ip6 saddr . udp sport . udp dport }}
  }}
"""

# Only where a service has TCP: a nat chain turns conntrack on, which costs every datagram of the host a look.
NAT_CHAINS = f"""\
{COMMON_CHAINS}
  chain nat_prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto tcp fib daddr type local jump translate_tcp
  }}
  chain nat_output {{
    type nat hook output priority -100; policy accept;
    meta l4proto tcp fib daddr type local jump translate_tcp
  }}
"""
NAT = Extension(NAT_CHAINS, ("nat_prerouting", "nat_output", "nat_postrouting", "translate_tcp"), needs_nat)


class Stateless:
    """The dataplane without state. One object serves any number of services of one network namespace."""

    name = DataplaneName.STATELESS
    engine = Engine.NFTABLES

    def __init__(self, nft: Nftables | None = None) -> None:
        self._nft = nft or Nftables()
        self._table = NftTable(self._nft, TABLE, BODY, since=SINCE, transient="seen", extension=NAT)

    def rehearse(self) -> None:
        """Raise MissingError where the kernel would not take the rules."""
        self._table.rehearse()

    def observe(self, service: Service) -> Observation:
        """Read what the kernel does with `service`; changes nothing."""
        snapshot = self._table.read()
        owned = snapshot.of(service.name)
        if not owned:
            return Observation(None, (f"table inet {TABLE} has nothing of {service.name}",))
        active = next((s for s in PortSet if _switched(service, s) <= owned), None)
        faults = [] if snapshot.rules_intact else [f"the rules of table inet {TABLE} were altered"]
        if active is None:
            faults.append("its ports do not all lead to one set")
        elif owned != _elements(service, active):
            faults.append(f"the elements of {service.name} are not those of the configuration")
        return Observation(active, tuple(faults))

    def install(self, service: Service, active: PortSet) -> None:
        """Make the kernel carry the whole service on `active`."""
        self._table.replace(service.name, _elements(service, active), self._table.read())

    def script(self, swap: Swap) -> str:
        """The exact text that `apply(swap)` commits."""
        before, after = _switched(swap.service, swap.source), _switched(swap.service, swap.to)
        return self._table.difference(swap.service.name, before, after)

    def apply(self, swap: Swap) -> float:
        """Move the service in one transaction; milliseconds that the commit took."""
        text = self.script(swap)
        started = time.perf_counter()
        self._nft.run(text)
        return (time.perf_counter() - started) * 1e3

    def staying(self, service: Service) -> int:  # noqa: ARG002 - the protocol's signature; nothing ever stays here
        """No flow stays: this dataplane knows none."""
        return 0

    def cut(self, service: Service) -> None:
        """Nothing to end."""

    def uninstall(self, name: str) -> bool:
        """Take out every rule of the service called `name`, the table with the last one."""
        snapshot = self._table.read()
        owned = snapshot.of(name)
        if owned and owned == set(snapshot.owned):
            self._table.drop()
        elif owned:
            self._table.replace(name, set(), snapshot)
        return bool(owned)

    def flows(self, service: Service) -> dict[PortSet, int | None]:
        """Live TCP flows per set; None for a service without TCP, since UDP flows leave no trace here."""
        tcp = tcp_flows(service)
        return {port_set: tcp[port_set] if service.of(Protocol.TCP) else None for port_set in PortSet}


def _switched(service: Service, active: PortSet) -> set[Element]:
    """The elements that a swap changes."""
    udp = {Element("internal", str(p.public), str(p.target(active).port)) for p in service.of(Protocol.UDP)}
    return udp | tcp_elements(service, active)


def _elements(service: Service, active: PortSet) -> set[Element]:
    """Everything that the kernel must hold of a service."""
    elements = fixed_elements(service) | _switched(service, active)
    request, reply = ("request", "reply") if service.protect else ("request_forgetting_probes", "reply_unless_probed")
    for port in service.of(Protocol.UDP):
        elements.add(Element("request_of", str(port.public), f"goto {request}"))
        for port_set in PortSet:
            internal = str(port.target(port_set).port)
            elements |= {Element("public", internal, str(port.public)), Element("probed", internal)}
            elements.add(Element("reply_of", internal, f"jump {reply}"))
    return elements
