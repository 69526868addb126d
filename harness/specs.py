"""What a scenario means, for the workers and for `swapper`: pure, from values to specs and text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from harness import wire
from harness.topology import FAMILIES, Topology

if TYPE_CHECKING:
    from pathlib import Path

    from harness.scenario import Scenario
    from harness.topology import Family, Side

__all__ = [
    "INTERNAL",
    "PUBLIC",
    "TCP_INTERNAL",
    "TCP_PUBLIC",
    "TCP_STREAM",
    "WHO",
    "backend",
    "configuration",
    "linger_ms",
    "listens",
    "streams",
    "tail_s",
    "tcp_client",
    "tcp_exchanges_per_s",
    "udp_ports",
]

PUBLIC: Final = 1000
INTERNAL: Final = {"blue": 1001, "green": 1002}
OTHERS_PUBLIC: Final = 2_000
OTHERS_INTERNAL: Final = {"blue": 12_000, "green": 22_000}
TCP_PUBLIC: Final = 8080
TCP_INTERNAL: Final = {"blue": 8081, "green": 8082}
TCP_STREAM: Final = 900
TCP_KEPT: Final = 8  # connections of each side and family that stay open
LEAST_TCP_TIMEOUT_MS: Final = 2000
MOST_TCP_TIMEOUT_MS: Final = 6000  # before a SYN is sent for the fourth time, after 7 s (tcp_syn_retries in tcp(7))
TCP_PATIENCE: Final = 8  # new connections between a request and its time-out: rarer on a slow machine
WHO: Final = {"blue": wire.BLUE, "green": wire.GREEN}
NS: Final = 1_000_000_000
LEAST_TAIL_S: Final = 0.3
LEAST_GONE_MS: Final = 2000  # of silence of a client that is pushed to; three times a flow's pause, if that is longer
LINGER_MS: Final = 600  # beside what a link and a backend take for a reply


def streams(scenario: Scenario, topology: Topology, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every stream of every side, by the node that its clients run in, phases spread over the interval."""
    patterns, kinds, rate = scenario.patterns, scenario.socket_kinds, scenario.stream_rate_per_s
    plans = [
        (side, family, pattern, connected)
        for side in scenario.sides
        for family in scenario.families
        for pattern in patterns
        for connected in kinds
        # The kernel has no way back to ::1 from behind a bridge; ARCHITECTURE.md has the reason.
        if (scenario.topology, side, family) != ("bridged", "loopback", 6)
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for number, (side, family, pattern, connected) in enumerate(plans):
        count = int(rate * scenario.seconds)
        group = groups.setdefault(topology.node_of(side), [])
        group.append(
            {
                "id": number,
                "side": side,
                "family": family,
                "address": topology.target(side, family),
                "source": topology.source(side, family),
                "port": PUBLIC,
                "rate_per_s": rate,
                "count": count,
                "flows": scenario.stream_flows,
                "pattern": pattern,
                "sender": scenario.sender,
                "connected": connected,
                "payload": scenario.payload,
                "phase_ns": number * NS // rate // len(plans),
                # Long and fresh, connected and not, share an address: each has a range of source ports.
                "first_port": 12_000 + 12_500 * (2 * patterns.index(pattern) + kinds.index(connected)),
                "sent_log": str(folder / f"sent-{number}"),
            }
        )
    return groups


def tcp_client(scenario: Scenario, topology: Topology, side: Side, family: Family, *, run: int) -> dict[str, Any]:
    """The TCP connections of one side and family."""
    return {
        "id": TCP_STREAM,
        "run": run,
        "family": family,
        "address": topology.target(side, family),
        "source": topology.source(side, family),
        "port": TCP_PUBLIC,
        "connections": TCP_KEPT,
        "rate_per_s": scenario.tcp_rate_per_s,
        "new_every_ms": scenario.tcp_new_every_ms,
        "timeout_ms": min(MOST_TCP_TIMEOUT_MS, max(LEAST_TCP_TIMEOUT_MS, TCP_PATIENCE * scenario.tcp_new_every_ms)),
        "duration_ms": int(scenario.seconds * 1000),
    }


def tcp_exchanges_per_s(scenario: Scenario) -> float:
    """What its TCP connections come to, in requests that are answered: opening and closing one takes as much as two."""
    if not scenario.tcp:
        return 0.0
    each_per_s = TCP_KEPT * scenario.tcp_rate_per_s + 3 * 1000 / scenario.tcp_new_every_ms
    return each_per_s * len(scenario.sides) * len(scenario.families)


def linger_ms(scenario: Scenario) -> float:
    """How long clients listen after their last datagram."""
    return LINGER_MS + 2 * scenario.delay_ms + scenario.service_ms


def tail_s(scenario: Scenario) -> float:
    """How long streams go on after the last swap at least: every stream, and a new connection, has to find it."""
    return max(
        LEAST_TAIL_S, 3 / scenario.stream_rate_per_s, 2 * scenario.tcp_new_every_ms / 1000 if scenario.tcp else 0
    )


def backend(scenario: Scenario, topology: Topology, port_set: str, *, run: int, log: Path) -> dict[str, Any]:
    """The backend of one port set."""
    per_second = scenario.rate_per_s * len(scenario.sides) * (2 if scenario.pattern == "both" else 1)
    spec: dict[str, Any] = {
        "who": WHO[port_set],
        "run": run,
        "kind": scenario.backend,
        "service_ms": scenario.service_ms,
        "listen": listens(scenario, topology, port_set)[1],
        "log": str(log),
        "capacity": int(per_second * (scenario.seconds + 5)) * (4 if scenario.backend == "push" else 1) + 10_000,
        "push_rate_per_s": scenario.push_rate_per_s,
        "gone_after_ms": max(LEAST_GONE_MS, 3000 * scenario.stream_flows / scenario.stream_rate_per_s),
    }
    if scenario.pause_ms:
        spec["rcvbuf"] = 64 * 1024
    return spec


def listens(scenario: Scenario, topology: Topology, port_set: str) -> tuple[str, list[dict[str, Any]]]:
    """The node that a port set's backend runs in, and what it listens on."""
    bridged = scenario.topology == "bridged"
    port = INTERNAL["blue"] if bridged else INTERNAL[port_set]
    listen: list[dict[str, Any]] = [{"family": family, "port": port} for family in FAMILIES]
    if scenario.tcp:
        tcp = TCP_INTERNAL["blue"] if bridged else TCP_INTERNAL[port_set]
        listen += [{"protocol": "tcp", "family": family, "port": tcp} for family in FAMILIES]
    return (port_set if bridged else topology.host), listen


def udp_ports(count: int) -> list[tuple[int, dict[str, int]]]:
    """So many public UDP ports, each with its internal ones, for 1 to 10,000; all below the ports of local clients.

    PUBLIC is in the middle: a datagram goes through a chain of rules in order, and should not be the first or the last.
    """
    others = [
        (OTHERS_PUBLIC + number, {port_set: first + number for port_set, first in OTHERS_INTERNAL.items()})
        for number in range(count - 1)
    ]
    others.insert(len(others) // 2, (PUBLIC, INTERNAL))
    return others


def configuration(scenario: Scenario, folder: Path, topology: Topology) -> str:
    """The swapper.toml that a user would write for this scenario."""

    def target(ports: dict[str, int], port_set: str) -> str:
        if scenario.topology != "bridged":
            return str(ports[port_set])
        v4, v6 = topology.address(port_set, 4), topology.address(port_set, 6)
        return f'["{v4}:{ports["blue"]}", "[{v6}]:{ports["blue"]}"]'

    def port(protocol: str, public: int, ports: dict[str, int]) -> str:
        blue, green = target(ports, "blue"), target(ports, "green")
        return f'{{ protocol = "{protocol}", public = {public}, blue = {blue}, green = {green} }}'

    ports = [port("udp", public, internal) for public, internal in udp_ports(scenario.ports)]
    ports += [port("tcp", TCP_PUBLIC, TCP_INTERNAL)] if scenario.tcp else []
    lines = [
        f'state_dir = "{folder / "state"}"',
        f'run_dir = "{folder / "run"}"',
        "[services.game]",
        *([f'dataplane = "{scenario.dataplane}"'] if scenario.dataplane else []),
        *([f'engine = "{scenario.engine}"'] if scenario.engine else []),
        f"ports = [{', '.join(ports)}]",
        "[services.game.swap]",
        f'udp = "{scenario.udp}"',
        f"drain_timeout = {scenario.drain_timeout_s}",
        f"idle_timeout = {scenario.idle_timeout_s}",
    ]
    if scenario.dataplane == "classic":
        lines += ["[services.game.classic]", f'flush = "{scenario.flush}"']
        lines += [f"output_chain = {str(scenario.output_chain).lower()}"]
    return "\n".join(lines) + "\n"
