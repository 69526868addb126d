"""What the kernel can do and how it is set."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from swapper import dataplane as dataplanes
from swapper.child import in_child
from swapper.doctor.findings import Level, Problem
from swapper.errors import MissingError
from swapper.localports import unreserved
from swapper.model import Address, Engine, Family, PortSet, Service

if TYPE_CHECKING:
    from swapper.config import Config

__all__ = ["forwarding", "local_ports", "loopback", "rehearsal"]

CLONE_NEWNET = 0x40000000
IPTABLES_MODULES = "modprobe -a xt_CT xt_MARK xt_nat xt_addrtype xt_comment xt_set xt_time"
NFTABLES_MODULES = "modprobe -a nf_tables nft_ct nft_nat nft_fib_inet nft_masq"
FORWARDING: dict[Family, str] = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}


def rehearsal(config: Config) -> Iterator[Problem]:
    """Whether the kernel takes each service's rules: installed by a child, in a network namespace that ends with it."""
    for service in config.services.values():
        try:
            engine = dataplanes.for_service(service).engine
        except MissingError:
            yield Problem(Level.WARN, f"{service.name}: its rules were not tried, for want of an engine")
            continue
        said = in_child(partial(_install_apart, service))
        if said.startswith(PermissionError.__name__):
            yield Problem(Level.WARN, f"{service.name}: {said}: a namespace needs CAP_SYS_ADMIN", "sudo swapper doctor")
        elif said:
            mend = NFTABLES_MODULES if engine is Engine.NFTABLES else IPTABLES_MODULES
            yield Problem(Level.FAIL, f"{service.name}: its rules do not load here: {said}", mend)


def forwarding(config: Config) -> Iterator[Problem]:
    """Whether packets to backends behind a bridge are forwarded."""
    for family, name in FORWARDING.items():
        behind = [s.name for s in config.services.values() if any(_behind_bridge(s, family))]
        if behind and _sysctl(name) == "0":
            found = f"{name} is 0: no client reaches the IPv{family} backends of {', '.join(behind)}"
            yield Problem(Level.FAIL, found, f"sysctl -w {name}=1")


def loopback(config: Config) -> Iterator[Problem]:
    """Whether the bridges let clients on 127.0.0.1 through."""
    addresses = {address for service in config.services.values() for address in _behind_bridge(service, 4)}
    for bridge in sorted({_interface(address) for address in addresses} - {""}):
        name = f"net.ipv4.conf.{bridge}.route_localnet"
        if _sysctl(name) == "0" and _sysctl("net.ipv4.conf.all.route_localnet") == "0":
            found = f"{name} is 0: clients on 127.0.0.1 do not reach the backends behind {bridge}"
            yield Problem(Level.WARN, found, f"sysctl -w {name}=1")


def local_ports(config: Config) -> Iterator[Problem]:
    """Whether the internal ports are kept from local clients."""
    for service in config.services.values():
        found, mend = unreserved(service)
        if found:
            yield Problem(Level.WARN, f"{service.name}: {found}", mend)


def _install_apart(service: Service) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    dataplanes.for_service(service).install(service, PortSet.BLUE)


def _behind_bridge(service: Service, family: Family) -> Iterator[Address]:
    for port in service.ports:
        for target in (port.blue, port.green):
            if address := target.address(family):
                yield address


def _interface(address: Address) -> str:
    """The interface that the most specific IPv4 route to an address leads to (proc_pid_net(5)), "" without one."""
    found, longest = "", -1
    for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]:
        interface, destination, *_, mask, _, _, _ = line.split()
        network, bits = (int.from_bytes(bytes.fromhex(word), sys.byteorder) for word in (destination, mask))
        if int(address) & bits == network and bits > longest:
            found, longest = interface, bits
    return found


def _sysctl(name: str) -> str:
    return Path("/proc/sys", *name.split(".")).read_text(encoding="ascii").strip()
