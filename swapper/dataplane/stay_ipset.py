"""Drain on iptables: the client endpoints that may stay with the old backend, as ipsets that empty themselves.

One set for each family, `hash:ip,port` matched by source: a client endpoint's own packets refresh its timeout. The
rule that looks into the set carries the deadline (xt_time), so the kernel cuts what is left even when the command
that began the drain is dead; xt_time counts whole seconds, so that is at most one second late. Source: ipset(8).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from swapper.dataplane.chains import PRIVATE
from swapper.dataplane.iptables import Rule, Rules, families, ran, rule
from swapper.dataplane.traces import ipsets
from swapper.errors import KernelRefusedError, MissingError
from swapper.flows import Flow
from swapper.model import Family, PortSet, Service

__all__ = ["StayIpset", "deadline"]

SIZE = 1 << 20
CLOCK_REALTIME_COARSE = 5  # clock_gettime(2); Python has no name for it
INSTALL = "apt-get install -y ipset"
# What the tool says without ip_set in the kernel; an argument that it takes itself can only be the subsystem.
LACKS = ("Kernel error received: Invalid argument", "Cannot open session to kernel")


class StayIpset:
    """The drains of one engine; remembers which services have one, as last read from the kernel or begun here."""

    def __init__(self) -> None:
        self._on: dict[str, PortSet] = {}

    def observe(self, service: Service, seen: Mapping[Family, Rules]) -> PortSet | None:
        """The set that flows of `service` may stay on, None when nothing drains any more; notes what is left over."""
        self._on.pop(service.name, None)
        live: PortSet | None = None
        for family, rules in seen.items():
            for words in rules.get("raw", {}).get(PRIVATE + service.name, []):
                # `--add-set` stays behind when a command dies while it learns which flows there are.
                if (noted := _noted(words, service.name, family)) is None:
                    continue
                self._on[service.name] = noted
                if "--datestop" in words and not _is_over(words[words.index("--datestop") + 1]):
                    live = noted
        return live

    def is_of_drain(self, words: Rule, service: Service, family: Family) -> bool:
        """Whether a rule of the service's private chain is one that a drain adds for its time."""
        return _noted(words, service.name, family) is not None

    def is_on(self, service: Service) -> bool:
        """Whether anything of a drain is there, live or left over: rules when last read, or sets now."""
        return service.name in self._on or bool(_sets_of(service.name))

    def active(self, service: Service) -> PortSet | None:
        """The set on which flows of the service were let stay, whether or not the deadline has passed."""
        return self._on.get(service.name)

    def begin(self, service: Service, port_set: PortSet) -> None:
        """Note that a drain is about to be committed."""
        self._on[service.name] = port_set

    def forget(self, service: Service) -> None:
        """Note that the service drains no more."""
        self._on.pop(service.name, None)

    def create(self, service: Service, port_set: PortSet) -> None:
        """Make the sets, empty. Raises MissingError without ipset on this host."""
        idle = max(1, round(service.idle_timeout_s))
        lines = []
        for family in families():
            name = _set(service.name, port_set, family)
            inet = "inet" if family == 4 else "inet6"
            lines.append(f"create -exist {name} hash:ip,port family {inet} timeout {idle} maxelem {SIZE}")
            lines.append(f"flush {name}")
        _ipset("restore", text="\n".join(lines) + "\n")

    def add(self, service: Service, port_set: PortSet, flows: list[Flow]) -> None:
        """Let the client endpoints of `flows` stay."""
        if flows:
            lines = [
                f"add -exist {_set(service.name, port_set, f.family)} {f.source_text()},udp:{f.sport}\n" for f in flows
            ]
            _ipset("restore", text="".join(lines))

    def left(self, service: Service) -> int:
        """How many client endpoints may still stay."""
        port_set = self._on.get(service.name)
        if port_set is None:
            return 0
        mine = {_set(service.name, port_set, family) for family in families()}
        return sum(_entries(found) for found in _sets_of(service.name) if found in mine)

    def match(self, service: Service, port_set: PortSet, family: Family, chain: str, until: datetime) -> Rule:
        """The rule that sends those who may stay to `chain`, until the deadline."""
        name = _set(service.name, port_set, family)
        return rule(f"-p udp -m time --datestop {until:%Y-%m-%dT%H:%M:%S} -m set --match-set {name} src,src -g {chain}")

    def kept(self, service: Service, port_set: PortSet, family: Family) -> list[Rule]:
        """The rule by which a packet refreshes its own flow's timeout."""
        idle = max(1, round(service.idle_timeout_s))
        name = _set(service.name, port_set, family)
        return [rule(f"-p udp -j SET --add-set {name} src,src --exist --timeout {idle}")]

    def destroy(self, name: str) -> None:
        """Remove every set of a service; nothing to remove is not an error.

        A set that a rule still names stays: that rule is of the other iptables engine, which takes both out.
        """
        self._on.pop(name, None)
        for found in _sets_of(name):
            _destroy(found)

    def destroy_set(self, name: str, port_set: PortSet) -> None:
        """Remove the sets of one drain."""
        wanted = {_set(name, port_set, family) for family in families()}
        for found in _sets_of(name):
            if found in wanted:
                _destroy(found)


def deadline(service: Service) -> datetime:
    """When a drain that is committed now ends at the latest; asked for once, so that both families end together."""
    return datetime.now(UTC) + timedelta(seconds=service.drain_timeout_s)


def _set(name: str, port_set: PortSet, family: Family) -> str:
    return f"sw-{name}-{port_set[0]}{family}"


def _is_over(stop: str) -> bool:
    """Whether the second `stop` is over by the clock that xt_time reads: it stands still between two timer ticks."""
    stop_s = datetime.fromisoformat(stop).replace(tzinfo=UTC).timestamp()
    return time.clock_gettime(CLOCK_REALTIME_COARSE) >= stop_s + 1


def _noted(words: Rule, name: str, family: Family) -> PortSet | None:
    """The set whose flows a rule lets stay, or notes; None for a rule that names none of the service's ipsets."""
    for option in ("--add-set", "--match-set"):
        if option in words[:-1]:
            named = words[words.index(option) + 1]
            return next((s for s in PortSet if named == _set(name, s, family)), None)
    return None


def _sets_of(name: str) -> list[str]:
    """The sets of a service that there are, asked of the kernel: they outlive their tool."""
    wanted = {_set(name, port_set, family) for port_set in PortSet for family in families()}
    return [found for found in ipsets() if found in wanted]


def _entries(name: str) -> int:
    return len(_ipset("list", name).partition("Members:\n")[2].splitlines())


def _destroy(name: str) -> None:
    try:
        _ipset("destroy", name)
    except KernelRefusedError as error:
        if "in use" not in str(error):
            raise


def _tool() -> str | None:
    return shutil.which("ipset") or shutil.which("ipset", path="/usr/sbin:/sbin")


def _ipset(*arguments: str, text: str | None = None) -> str:
    tool = _tool()
    if tool is None:
        raise MissingError(f'udp = "drain" on an iptables engine needs ipset; bring it with: {INSTALL}')
    done = ran([tool, *arguments], text=text)
    if any(lack in done.stderr for lack in LACKS):
        raise MissingError(
            'udp = "drain" on an iptables engine needs ip_set in the kernel '
            f"(load it: modprobe -a ip_set ip_set_hash_ipport xt_set):\n{done.stderr.strip()}"
        )
    if done.returncode:
        raise KernelRefusedError(f"ipset refused, nothing moved:\n{done.stderr.strip()}")
    return done.stdout
