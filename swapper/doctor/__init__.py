"""What is wrong with this host, and the command that mends it. Looks only, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapper.doctor import firewall, kernel, ports, services, tools
from swapper.doctor.findings import Check, Finding, Level
from swapper.operations import has_net_admin

if TYPE_CHECKING:
    from swapper.config import Config

__all__ = ["CHECKS", "Check", "Finding", "Level", "examine"]

CHECKS = (
    Check("permissions", "this process may program netfilter", tools.permissions, privileged=False),
    Check("tools", "what the configuration needs is installed", tools.tools),
    Check("kernel", "the rules of every service load in a network namespace of their own", kernel.rehearsal),
    Check(
        "forwarding", "packets are forwarded where a backend is behind a bridge", kernel.forwarding, privileged=False
    ),
    Check("loopback", "clients on 127.0.0.1 reach every backend behind a bridge", kernel.loopback, privileged=False),
    Check("local ports", "no local client takes an internal port", kernel.local_ports, privileged=False),
    Check("conntrack", "conntrack has room for what is there, and for a cut", services.conntrack),
    Check("proxy", "no process stands between clients and backends", ports.proxies, privileged=False),
    Check("exposure", "no internal port is open to outsiders", ports.exposure, privileged=False),
    Check("firewall", "no firewall closes an internal port to the traffic of its public one", firewall.closed),
    Check("rule order", "nobody else translates a public port", firewall.rivals),
    Check("state", "the state can be trusted, and its folders written", services.state, privileged=False),
    Check("in sync", "kernel, state and configuration agree", services.in_sync),
)


def examine(config: Config) -> list[Finding]:
    """Every check of this host, in order; one that cannot be made is a warning. Never raises."""
    return [finding for check in CHECKS for finding in _findings(check, config)]


def _findings(check: Check, config: Config) -> list[Finding]:
    if check.privileged and not has_net_admin():
        return [Finding(check.name, Level.WARN, "cannot be checked without CAP_NET_ADMIN", "sudo swapper doctor")]
    try:
        problems = list(check.look(config))
    except Exception as error:  # noqa: BLE001 - where it is asked for, anything may be broken
        return [Finding(check.name, Level.WARN, f"could not be checked: {str(error) or type(error).__name__}")]
    if not problems:
        return [Finding(check.name, Level.OK, check.well)]
    return [Finding(check.name, problem.level, problem.found, problem.mend) for problem in problems]
