"""Streams against a backend on the host, without a swap: the specs of both, and the account of one run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from harness import ledger, records, wire
from harness.calibrate import pace
from harness.pace import rarity
from harness.topology import FAMILIES

if TYPE_CHECKING:
    from pathlib import Path

    from harness.netns import Net
    from harness.topology import Family, Topology

__all__ = ["PORT", "account_for", "backend_spec", "counted", "eased", "stream_spec"]

PORT = 1000
LINGER_MS = 600  # a slow machine's wake-ups included


def backend_spec(logs: Path, **more: Any) -> dict[str, Any]:
    listen = [{"family": family, "port": PORT} for family in FAMILIES]
    spec = {"who": wire.BLUE, "run": 9, "listen": listen, "log": str(logs / "blue"), "capacity": 500_000}
    return {**spec, **more}


def stream_spec(
    logs: Path, topology: Topology, side: Any, family: Family, *, number: int, **more: Any
) -> dict[str, Any]:
    spec = {
        "id": number,
        "family": family,
        "address": topology.target(side, family),
        "source": topology.source(side, family),
        "port": PORT,
        "rate_per_s": 1000,
        "count": 1000,
        "flows": 4,
        "pattern": "long",
        "sender": "socket",
        "connected": True,
        "payload": 64,
        "first_port": 20_000 + 4_000 * number,
        "sent_log": str(logs / f"sent-{number}"),
    }
    return {**spec, **more}


def eased(streams: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """As many datagrams, and as often, as this machine was measured to hold, in the same time."""
    rarer = rarity(sum(spec["rate_per_s"] for specs in streams.values() for spec in specs), pace())
    return {
        node: [
            {**spec, **{name: max(1, round(spec[name] / rarer)) for name in ("rate_per_s", "count")}} for spec in specs
        ]
        for node, specs in streams.items()
    }


def counted(streams: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    """How many datagrams the clients of each node send."""
    return {node: sum(spec["count"] for spec in specs) for node, specs in streams.items()}


def account_for(
    net: Net, logs: Path, streams: dict[str, list[dict[str, Any]]], backend: dict[str, Any]
) -> ledger.Ledger:
    """Run all streams at once against one blue backend on the host."""
    serving = net["host"].spawn("backend", backend)
    common = {"run": 9, "capacity": 100_000, "linger_ms": LINGER_MS}
    clients = [
        net[node].spawn("client", {**common, "log": str(logs / node), "streams": specs})
        for node, specs in streams.items()
    ]
    t0_ns = time.time_ns() + 50_000_000
    for client in clients:
        client.go(t0_ns)
    reports = [client.result(timeout_s=30) for client in clients]
    final = serving.stop()
    everything = [spec for specs in streams.values() for spec in specs]
    kind: Any = backend.get("kind", "echo")
    return ledger.account(
        [ledger.Plan(spec["id"], "", spec["family"], spec["rate_per_s"], spec["count"], kind) for spec in everything],
        t0_ns=t0_ns,
        sent={spec["id"]: records.read_sent(spec["sent_log"]) for spec in everything},
        received=[records.read_received(logs / node) for node in streams],
        backends=[ledger.BackendLog(wire.BLUE, records.read_seen(logs / "blue"))],
        client_drops={one["id"]: one["drops"] for report in reports for one in report["streams"]},
        backend_drops={one["family"]: one["drops"] for one in final["drops"]},
    )
