"""The configuration file: TOML in, checked once, frozen. It knows neither the kernel nor this host."""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard, TypeVar

from swapper.errors import ConfigError
from swapper.model import (
    FAMILIES,
    SERVICE_NAME,
    Address,
    BackendKind,
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
_LONGEST_TIMEOUT_S = 86_400
_NAME_RULE = "a lower-case letter, then up to 19 lower-case letters, digits or -"
_TARGET_RULE = (
    'a port of this host (1001), a backend\'s address and port ("172.30.0.2:1001", "[fd00:30::2]:1001"), '
    "or a list of one IPv4 and one IPv6 address with the same port"
)
_HOST_AND_PORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+)):(?P<port>[1-9][0-9]{0,4})")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

_Choice = TypeVar("_Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration file, valid."""

    path: Path
    state_dir: Path = Path("/var/lib/swapper")
    run_dir: Path = Path("/run/swapper")
    services: dict[str, Service] = field(default_factory=dict)


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
    top = _Table(path, mistakes, "", document)
    state_dir = top.directory("state_dir", Config(path).state_dir)
    run_dir = top.directory("run_dir", Config(path).run_dir)
    in_use = _InUse()
    services: dict[str, Service] = {}
    if (tables := top.table("services")) is not None:
        for name in tables.values:
            if not SERVICE_NAME.fullmatch(name):
                tables.mistake(name, f"the service name {_shown(name)}", _NAME_RULE)
            if (table := tables.table(name)) is not None:
                services[name] = _service(name, table, in_use)
    top.close()
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return Config(path, state_dir, run_dir, services)


class _Table:
    """One TOML table being read: the keys that are asked for are the keys that are allowed.

    A getter answers the default where the key is absent. Where it is wrong it notes the mistake and answers
    None, or the default where nothing else is checked against the value.
    """

    def __init__(self, path: Path, mistakes: list[str], key: str, values: Mapping[str, object]) -> None:
        self.path = path
        self.mistakes = mistakes
        self.key = key
        self.values = values
        self._asked: list[str] = []

    def mistake(self, name: str, found: str, allowed: str) -> None:
        shown = name if _BARE_KEY.fullmatch(name) else _shown(name)
        key = f"{self.key}.{shown}" if self.key else shown
        self.mistakes.append(f"{self.path}: {key}: found {found}; allowed: {allowed}")

    def close(self) -> None:
        for name in self.values:
            if name not in self._asked:
                near = difflib.get_close_matches(name, self._asked, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                self.mistake(name, f"an unknown key{hint}", ", ".join(self._asked))

    def value(self, name: str) -> object:
        self._asked.append(name)
        return self.values.get(name)

    def table(self, name: str) -> _Table | None:
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.mistake(name, _shown(value), "a table")
            return None
        shown = name if _BARE_KEY.fullmatch(name) else _shown(name)
        return _Table(self.path, self.mistakes, f"{self.key}.{shown}" if self.key else shown, value)

    def tables(self, name: str) -> list[_Table]:
        value = self.value(name)
        allowed = "a list of at least one { protocol, public, blue, green }"
        if not isinstance(value, list) or not value:
            self.mistake(name, "nothing" if value is None else _shown(value), allowed)
            return []
        found: list[_Table] = []
        for index, item in enumerate(value):
            key = f"{name}[{index}]"
            if isinstance(item, dict):
                found.append(_Table(self.path, self.mistakes, f"{self.key}.{key}", item))
            else:
                self.mistakes.append(
                    f"{self.path}: {self.key}.{key}: found {_shown(item)}; "
                    "allowed: a table { protocol, public, blue, green }"
                )
        return found

    def directory(self, name: str, default: Path) -> Path:
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, str) and value.startswith("/") and "\0" not in value:
            return Path(value)
        self.mistake(name, _shown(value), 'an absolute path, such as "' + str(default) + '"')
        return default

    def choice(
        self, name: str, allowed: Iterable[_Choice], default: _Choice | None = None, *, required: bool = False
    ) -> _Choice | None:
        value = self.value(name)
        if value is None and not required:
            return default
        choices = tuple(allowed)
        for choice in choices:
            if value == choice.value:
                return choice
        found = "nothing" if value is None else _shown(value)
        near = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
        hint = f" (did you mean {_shown(near[0])}?)" if near else ""
        self.mistake(name, found + hint, _any_of(choices))
        return None

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.value(name)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.mistake(name, _shown(value), "true or false")
        return default

    def seconds(self, name: str, default: float) -> float:
        value = self.value(name)
        if value is None:
            return default
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(value, int | float) and number and 0 < value <= _LONGEST_TIMEOUT_S:  # nan compares false
            return float(value)
        self.mistake(name, _shown(value), f"seconds, above 0 and at most {_LONGEST_TIMEOUT_S}")
        return default

    def port(self, name: str) -> int | None:
        value = self.value(name)
        if _is_port(value):
            return value
        self.mistake(name, "nothing" if value is None else _shown(value), "a port, 1 to 65535")
        return None

    def target(self, name: str) -> Target | None:
        value = self.value(name)
        target = _target(value)
        if target is None:
            self.mistake(name, "nothing" if value is None else _shown(value), _TARGET_RULE)
        return target


class _InUse:
    """Every port that has a role, with the key that gave it one: no port can have two."""

    def __init__(self) -> None:
        self._keys: dict[tuple[Protocol, Address | None, int], str] = {}

    def claim(self, table: _Table, name: str, protocol: Protocol, target: Target) -> None:
        for address in target.addresses or (None,):
            key = (protocol, address, target.port)
            first = self._keys.setdefault(key, f"{table.key}.{name}")
            if first != f"{table.key}.{name}":
                shown = Target(target.port, () if address is None else (address,))
                allowed = "a port that has no other role in any service"
                table.mistake(name, f"{protocol} {shown}, which is also {first}", allowed)


def _service(name: str, table: _Table, in_use: _InUse) -> Service:
    # Asked for in the order in which the README shows them, since that is the order of "allowed".
    dataplane = table.choice("dataplane", USABLE_ENGINES, _DEFAULTS.dataplane)
    engine = table.choice("engine", _ENGINES)
    protect = table.flag("protect", default=_DEFAULTS.protect)
    ports = [_port_map(port, dataplane, in_use) for port in table.tables("ports")]
    if dataplane and engine and engine not in USABLE_ENGINES[dataplane]:
        usable = f"{_any_of(USABLE_ENGINES[dataplane])} with dataplane {_shown(dataplane)}"
        table.mistake("engine", _shown(engine), usable)
    udp, drain_timeout_s, idle_timeout_s = _swap(table.table("swap"), dataplane)
    classic = _classic(table, dataplane)
    backend: BackendKind | None = _DEFAULTS.backend
    if (backend_table := table.table("backend")) is not None:
        backend = backend_table.choice("kind", BackendKind, _DEFAULTS.backend)
        backend_table.close()
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
        backend=backend or _DEFAULTS.backend,
    )


def _swap(table: _Table | None, dataplane: DataplaneName | None) -> tuple[UdpMode, float, float]:
    if table is None:
        return _DEFAULTS.udp, _DEFAULTS.drain_timeout_s, _DEFAULTS.idle_timeout_s
    udp = table.choice("udp", UdpMode, _DEFAULTS.udp)
    drain_timeout_s = table.seconds("drain_timeout", _DEFAULTS.drain_timeout_s)
    idle_timeout_s = table.seconds("idle_timeout", _DEFAULTS.idle_timeout_s)
    table.close()
    if udp is UdpMode.DRAIN and dataplane is DataplaneName.STATELESS:
        table.mistake("udp", '"drain"', '"cut" with dataplane "stateless", which does not know its flows')
    return udp or _DEFAULTS.udp, drain_timeout_s, idle_timeout_s


def _classic(service: _Table, dataplane: DataplaneName | None) -> Classic:
    table = service.table("classic")
    if table is None:
        return _DEFAULTS.classic
    flush = table.choice("flush", Flush, _DEFAULTS.classic.flush)
    output_chain = table.flag("output_chain", default=_DEFAULTS.classic.output_chain)
    table.close()
    if dataplane not in {None, DataplaneName.CLASSIC}:
        found = f"a table, with dataplane {_shown(dataplane)}"
        service.mistake("classic", found, 'this table only with dataplane "classic"')
    return Classic(flush or _DEFAULTS.classic.flush, output_chain)


def _port_map(table: _Table, dataplane: DataplaneName | None, in_use: _InUse) -> PortMap | None:
    protocol = table.choice("protocol", Protocol, required=True)
    public = table.port("public")
    blue = table.target("blue")
    green = table.target("green")
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


def _is_port(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


def _target(value: object) -> Target | None:
    if _is_port(value):
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
    if match is None or not _is_port(int(match["port"])):
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


def _any_of(choices: Iterable[StrEnum]) -> str:
    return ", ".join(f'"{choice}"' for choice in choices)


def _shown(value: object) -> str:
    """What was found, as the file would write it, short enough for one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "a table"
        case list():
            text = f"[{', '.join(_shown(item) for item in value[:3])}{', ...' if len(value) > 3 else ''}]"
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            text = '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
        case int() if abs(value) >= 2**64:  # the interpreter refuses to print a number of 5,000 digits
            return "an integer of more than 64 bits"
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            text = str(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."
