"""The configuration file: TOML in, checked once, frozen. It knows neither the kernel nor this host."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from swapper.configrecipe import recipe, serve
from swapper.errors import ConfigError
from swapper.model import (
    FAMILIES,
    SERVICE_NAME,
    Address,
    Classic,
    DataplaneName,
    Engine,
    Flush,
    PortMap,
    Protocol,
    Service,
    Target,
    UdpMode,
)
from swapper.recipe import Serve
from swapper.tomltable import Table, any_of, is_port, shown_as

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_PATH", "USABLE_ENGINES", "Config", "load", "parse"]

DEFAULT_PATH = Path("/etc/swapper/swapper.toml")

# `memory` is missing on purpose: it carries no traffic, so a file that names it would take a service down.
USABLE_ENGINES: Mapping[DataplaneName, tuple[Engine, ...]] = {
    DataplaneName.ZONES: (Engine.NFTABLES, Engine.IPTABLES_NFT, Engine.IPTABLES_LEGACY),
    DataplaneName.STATELESS: (Engine.NFTABLES,),
    DataplaneName.CLASSIC: (Engine.IPTABLES_NFT, Engine.IPTABLES_LEGACY),
}

_ENGINES = USABLE_ENGINES[DataplaneName.ZONES]
_DEFAULTS = Service(name="", ports=())
_NAME_RULE = "a lower-case letter, then up to 19 lower-case letters, digits or -"
_TARGET_RULE = (
    'a port of this host (1001), a backend\'s address and port ("172.30.0.2:1001", "[fd00:30::2]:1001"), '
    "or a list of one IPv4 and one IPv6 address with the same port"
)
_HOST_AND_PORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+)):(?P<port>[1-9][0-9]{0,4})")


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration file, valid."""

    path: Path
    state_dir: Path = Path("/var/lib/swapper")
    run_dir: Path = Path("/run/swapper")
    services: dict[str, Service] = field(default_factory=dict)
    serve: Serve = field(default_factory=Serve)


def load(path: Path | None = None) -> Config:
    """Read the file at `path`, else at $SWAPPER_CONFIG, else at /etc/swapper/swapper.toml.

    Raises ConfigError, which lists all mistakes at once: file, key, what was found, what is allowed.
    """
    path = path or Path(os.environ.get("SWAPPER_CONFIG") or DEFAULT_PATH)
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}; name the file with --config or $SWAPPER_CONFIG"
        raise ConfigError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: not valid TOML: byte {error.start} is not UTF-8"
        raise ConfigError(msg) from error
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        msg = f"{path}: not valid TOML: {error}"
        raise ConfigError(msg) from error
    return parse(document, path)


def parse(document: Mapping[str, object], path: Path) -> Config:
    """Check a TOML document that came from `path`.

    Raises ConfigError, which lists all mistakes at once: file, key, what was found, what is allowed.
    """
    mistakes: list[str] = []
    top = Table(path, mistakes, "", document)
    state_dir = top.directory("state_dir", Config(path).state_dir)
    run_dir = top.directory("run_dir", Config(path).run_dir)
    in_use = _InUse()
    services: dict[str, Service] = {}
    if (tables := top.table("services")) is not None:
        for name in tables.values:
            if not SERVICE_NAME.fullmatch(name):
                tables.mistake(name, f"the service name {shown_as(name)}", _NAME_RULE)
            if (table := tables.table(name)) is not None:
                services[name] = _service(name, table, in_use)
    serving = serve(top.table("serve"))
    top.close()
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return Config(path, state_dir, run_dir, services, serving)


class _InUse:
    """Every port that has a role, with the key that gave it one: no port can have two."""

    def __init__(self) -> None:
        self._keys: dict[tuple[Protocol, Address | None, int], str] = {}

    def claim(self, table: Table, name: str, protocol: Protocol, target: Target) -> None:
        for address in target.addresses or (None,):
            key = (protocol, address, target.port)
            first = self._keys.setdefault(key, f"{table.key}.{name}")
            if first != f"{table.key}.{name}":
                shown = Target(target.port, () if address is None else (address,))
                allowed = "a port that has no other role in any service"
                table.mistake(name, f"{protocol} {shown}, which is also {first}", allowed)


def _service(name: str, table: Table, in_use: _InUse) -> Service:
    # Asked for in the order in which the README shows them, since that is the order of "allowed".
    dataplane = table.choice("dataplane", USABLE_ENGINES, _DEFAULTS.dataplane)
    engine = table.choice("engine", _ENGINES)
    protect = table.flag("protect", default=_DEFAULTS.protect)
    ports = [_port_map(port, dataplane, in_use) for port in table.tables("ports")]
    if dataplane and engine and engine not in USABLE_ENGINES[dataplane]:
        usable = f"{any_of(USABLE_ENGINES[dataplane])} with dataplane {shown_as(dataplane)}"
        table.mistake("engine", shown_as(engine), usable)
    udp, drain_timeout_s, idle_timeout_s = _swap(table.table("swap"), dataplane)
    classic = _classic(table, dataplane)
    kind, how = recipe(table, tuple(port for port in ports if port is not None))
    table.close()
    return Service(
        name=name,
        ports=tuple(port for port in ports if port is not None),
        dataplane=dataplane or _DEFAULTS.dataplane,
        engine=engine,
        protect=protect,
        udp=udp,
        drain_timeout_s=drain_timeout_s,
        idle_timeout_s=idle_timeout_s,
        classic=classic,
        backend=kind,
        recipe=how,
    )


def _swap(table: Table | None, dataplane: DataplaneName | None) -> tuple[UdpMode, float, float]:
    if table is None:
        return _DEFAULTS.udp, _DEFAULTS.drain_timeout_s, _DEFAULTS.idle_timeout_s
    udp = table.choice("udp", UdpMode, _DEFAULTS.udp)
    drain_timeout_s = table.seconds("drain_timeout", _DEFAULTS.drain_timeout_s)
    idle_timeout_s = table.seconds("idle_timeout", _DEFAULTS.idle_timeout_s)
    table.close()
    if udp is UdpMode.DRAIN and dataplane is DataplaneName.STATELESS:
        table.mistake("udp", '"drain"', '"cut" with dataplane "stateless", which does not know its flows')
    return udp or _DEFAULTS.udp, drain_timeout_s, idle_timeout_s


def _classic(service: Table, dataplane: DataplaneName | None) -> Classic:
    table = service.table("classic")
    if table is None:
        return _DEFAULTS.classic
    flush = table.choice("flush", Flush, _DEFAULTS.classic.flush)
    output_chain = table.flag("output_chain", default=_DEFAULTS.classic.output_chain)
    table.close()
    if dataplane not in {None, DataplaneName.CLASSIC}:
        found = f"a table, with dataplane {shown_as(dataplane)}"
        service.mistake("classic", found, 'this table only with dataplane "classic"')
    return Classic(flush or _DEFAULTS.classic.flush, output_chain)


def _port_map(table: Table, dataplane: DataplaneName | None, in_use: _InUse) -> PortMap | None:
    protocol = table.choice("protocol", Protocol, required=True)
    public = table.port("public")
    blue = _read_target(table, "blue")
    green = _read_target(table, "green")
    table.close()
    if dataplane is DataplaneName.STATELESS:
        for name, target in (("blue", blue), ("green", green)):
            if target and not target.on_host:
                allowed = 'a port of this host with dataplane "stateless"; an address needs "zones" or "classic"'
                table.mistake(name, f'"{target}"', allowed)
    if blue and green and _kind(blue) != _kind(green):
        table.mistake("green", _kind(green), f"{_kind(blue)}, as blue is")
    if protocol is None:
        return None
    if public is not None:
        in_use.claim(table, "public", protocol, Target(public))
    for name, target in (("blue", blue), ("green", green)):
        if target is not None:
            in_use.claim(table, name, protocol, target)
    if public is None or blue is None or green is None:
        return None
    return PortMap(protocol, public, blue, green)


def _kind(target: Target) -> str:
    if target.on_host:
        return "a port of this host"
    families = [f"IPv{family}" for family in FAMILIES if target.serves(family)]
    return " and ".join(f"an {family} address" for family in families)


def _read_target(table: Table, name: str) -> Target | None:
    value = table.value(name)
    target = _target(value)
    if target is None:
        table.mistake(name, "nothing" if value is None else shown_as(value), _TARGET_RULE)
    return target


def _target(value: object) -> Target | None:
    if is_port(value):
        return Target(value)
    if isinstance(value, str):
        return _address_target(value)
    if not isinstance(value, list) or len(value) != len(FAMILIES):
        return None
    parts = [_address_target(item) if isinstance(item, str) else None for item in value]
    addresses = {part.addresses[0].version: part.addresses[0] for part in parts if part}
    ports = {part.port for part in parts if part}
    if len(addresses) != len(FAMILIES) or len(ports) != 1:
        return None
    return Target(ports.pop(), (addresses[4], addresses[6]))


def _address_target(text: str) -> Target | None:
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None or not is_port(int(match["port"])):
        return None
    try:
        address = IPv4Address(match["v4"]) if match["v4"] else IPv6Address(match["v6"])
    except AddressValueError:
        return None
    # None of these is a backend behind a bridge: no packet from the public port could be routed to it.
    mapped = isinstance(address, IPv6Address) and (address.ipv4_mapped or address.is_link_local)
    if mapped or address.is_loopback or address.is_multicast or address.is_unspecified:
        return None
    return None if address == IPv4Address("255.255.255.255") else Target(int(match["port"]), (address,))
