"""A document of results as a full run writes it, with numbers as they were seen, for the tests of what reads it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from harness.histogram import Histogram
from harness.ledger import ANSWERED_BLUE, ANSWERED_GREEN, LOST, LOST_DOWN

__all__ = ["BROKEN", "LOSSES", "RATIOS", "ROUNDS", "document", "swap", "trips"]

ROUNDS: Final = 3
SENT: Final = 6000
LOSSES: Final = {
    "zones nftables": 0,
    "zones iptables-nft": 0,
    "zones iptables-legacy": 0,
    "stateless nftables": 0,
    "zones nftables, drain": 0,
    "nginx, reload": 17,
    "classic, flush": 40,
    "docker-proxy, restart": 81,
    "nginx, stream": 2,
    "socat, restart": 408,
    "envoy, a file of endpoints": 987,
    "classic, no flush": 2010,
    "somebody's <swap> & more": 4000,
}
BROKEN: Final = {"zones nftables, TCP": 0, "haproxy, TCP, runtime interface": 0, "docker-proxy, TCP, restart": 48}
CONNECTIONS: Final = {"opened": 96, "kept": 16, "new_after_swap": 40, "broken": 0, "moved": 0, "on_old_set": 0}
RATIOS: Final = {
    "direct": 1.0,
    "direct, again": 1.002,
    "stateless nftables": 1.026,
    "classic iptables-nft": 1.037,
    "zones nftables": 1.053,
    "zones iptables-legacy": 1.053,
    "zones iptables-nft": 1.057,
    "docker-proxy": 1.362,
    "nginx": 1.364,
    "socat": 1.38,
    "envoy": 1.437,
}
KINDS_US: Final = {"two cores": 55, "one core": 12, "first datagram": 60, "tcp connect": 180, "tcp request": 65}
COMMITS_MS: Final = {"zones nftables": 0.1, "zones iptables-nft": 2.0, "stateless nftables": 0.1, "classic": 60.0}
RANDOM: Final = np.random.default_rng(7)


def document(**changes: Any) -> dict[str, Any]:
    """A full run on a quiet machine."""
    found: dict[str, Any] = {
        "version": 3,
        "options": {
            "seed": 7,
            "quick": False,
            "rounds": ROUNDS,
            "rtt_s": 300.0,
            "parts": ["rtt", "swaps", "capacity", "cost", "sweeps"],
        },
        "environment": {
            "kernel": "6.18.44",
            "machine": "x86_64",
            "cpu": "a <cpu>",
            "cpus": 2,
            "load_1min": 0.1,
            "sysctls": {"net/core/rmem_max": "4194304"},
        },
        "noise": {"busy": False, "why": "", "at_rest": 0.02, "others": 0.05, "stolen": 0.0, "again_ratio": 1.002},
        "missing": {"haproxy": "haproxy is not on this host; bring it with: apt-get install haproxy"},
        "failed": {"capacity/envoy": "envoy did not start\n[critical] bind: address in use"},
        "measured": {
            "rtt": _rtt(),
            "swaps": {
                f"{name}, round {number}": swap(name, lost, drawn=number == 1)
                for number in range(1, ROUNDS + 1)
                for name, lost in LOSSES.items()
            }
            | {f"{name}, round 1": swap(name, tcp=CONNECTIONS | {"broken": broken}) for name, broken in BROKEN.items()},
            "capacity": {name: _capacity(ratio) for name, ratio in RATIOS.items()},
            "cost": {f"{name}, round {n}": _cost(name, ratio) for n in (1, 2, 3) for name, ratio in RATIOS.items()},
            "sweeps": _sweeps(),
        },
    }
    return found | changes


def swap(technique: str, lost: int = 0, *, drawn: bool = False, **changes: Any) -> dict[str, Any]:
    """One swap of a technique, with so many answers lost."""
    answered = SENT - lost
    ledger = dict.fromkeys(("duplicate", "not_sent", *LOST), 0) | {
        "sent": SENT,
        "answered_blue": SENT // 2,
        "answered_green": answered - SENT // 2,
        "lost_down": lost,
    }
    found: dict[str, Any] = {
        "technique": technique,
        "proxy": "",
        "verdict": "fail" if lost else "pass",
        "why": f"{lost} lost_down" if lost else f"0 of {SENT} lost",
        "scenario": {"rate_per_s": 2000, "service_ms": 20, "stop_old_after_s": 0.3, "tcp": "tcp" in changes},
        "ledger": ledger,
        "blackout_ms": lost / 2.0,
        "tcp": {},
        "timeline": _timeline(lost) if drawn else None,
    }
    return found | changes


def trips(routes: dict[str, float], about_us: float, turns: int = 250) -> dict[str, Any]:
    """What a round of a kind of time measures, for each route at its ratio to direct."""
    drift = RANDOM.normal(1, 0.1, turns)  # of the machine: the same for all, and gone in the ratios
    return {
        name: {
            "turns_us": (about_us * ratio * drift * RANDOM.normal(1, 0.01, turns)).round(3).tolist(),
            "histogram": Histogram.of(
                (about_us * ratio * RANDOM.lognormal(0, 0.12, turns * 40) * 1000).astype(int).tolist()
                + (about_us * ratio * RANDOM.lognormal(2, 0.8, turns // 3) * 1000).astype(int).tolist()
            ).to_json(),
        }
        for name, ratio in routes.items()
    }


def _timeline(lost: int) -> dict[str, Any]:
    fate = np.repeat([ANSWERED_BLUE, ANSWERED_GREEN], SENT // 2)
    fate[SENT // 2 : SENT // 2 + lost] = LOST_DOWN
    fate[SENT // 2 - max(0, lost - SENT // 2) : SENT // 2] = LOST_DOWN
    rtt_ms = 20 + RANDOM.lognormal(-2, 1.2, SENT)
    return {
        "due_ms": (np.arange(SENT) / 2).tolist(),
        "rtt_ms": rtt_ms.round(3).tolist(),
        "fate": fate.tolist(),
        "swaps_ms": [[1480.1, 1560.2]],
    }


def _rtt() -> dict[str, Any]:
    kernel = {name: ratio for name, ratio in RATIOS.items() if ratio < 1.1}
    tcp = {name: ratio for name, ratio in RATIOS.items() if name != "stateless nftables"} | {"haproxy": 1.5}
    routes = {"two cores": RATIOS, "one core": kernel, "first datagram": RATIOS, "tcp connect": tcp, "tcp request": tcp}
    return {
        f"{kind}, round {number}": trips(routes[kind], about_us)
        for number in range(1, ROUNDS + 1)
        for kind, about_us in KINDS_US.items()
    }


def _capacity(ratio: float) -> dict[str, Any]:
    rate_per_s = 400_000 if ratio < 1.1 else int(150 / ratio) * 1000
    return {
        "rate_per_s": rate_per_s,
        "limited_by": "sender" if ratio < 1.1 else "loss",
        "tries": [
            {
                "rate_per_s": rate_per_s,
                "sent": int(rate_per_s * 0.6),
                "lost": 0,
                "late_slots": 3,
                "reached_per_s": rate_per_s,
            }
        ]
        * 2,
    }


def _cost(path: str, ratio: float) -> dict[str, Any]:
    is_proxy = ratio > 1.1
    return {
        "datagrams": 20_000,
        "rate_per_s": 10_000,
        "system_us": 9.0 * ratio + (12 if is_proxy else 0) + float(RANDOM.normal(0, 0.1)),
        "proxy_us": 8.5 if is_proxy else None,
        "proxy_memory_mib": {"envoy": 61.3, "nginx": 4.8}.get(path, 2.1) if is_proxy else None,
    }


def _sweeps() -> dict[str, Any]:
    def point(path: str, x: float, ratio: float, **more: Any) -> dict[str, Any]:
        return {"path": path, "x": x, "ratio": ratio, "low": ratio - 0.006, "high": ratio + 0.007, "n": 400, **more}

    def commits(path: str, x: float) -> list[float]:
        grows = 0.003 * x if path == "classic" else 0.0
        return [round(float(COMMITS_MS[path] * one + grows), 3) for one in RANDOM.lognormal(0, 0.2, 5)]

    flows = [
        point(path, x, RATIOS.get(path, 1.04) + 0.004 * place, commit_ms=commits(path, x))
        for path in COMMITS_MS
        for place, x in enumerate((1, 1000, 50_000, 200_000))
    ]
    ports = [
        point(path, x, RATIOS[path], commit_ms=[0.1 + x * 0.002] * 3)
        for path in ("zones nftables", "stateless nftables")
        for x in (1, 100, 1000, 10_000)
    ]
    payload = [
        point(path, x, 1 + (RATIOS[path] - 1) * (1 + x / 8192))
        for path in ("zones nftables", "stateless nftables", "nginx", "envoy")
        for x in (64, 512, 1400, 8192)
    ]
    lost = [
        {"path": path, "x": x, "lost": lost if path == "classic, flush" else 0, "sent": SENT}
        for path in ("classic, flush", "zones nftables", "stateless nftables")
        for x, lost in ((0, 0), (5, 10), (20, 40), (50, 100))
    ]
    refused = {"path": "zones iptables-nft", "x": 10_000, "failed": "too many ports\nfor this"}
    rates = [one | {"x": max(500, one["x"] * 200)} for one in lost]
    return {
        **_points("flows", "live flows", flows),
        **_points("ports", "mapped ports", [*ports, refused]),
        **_points("payload", "bytes", payload),
        **_points("service time", "ms", lost),
        **_points("rate", "datagrams/s", rates),
    }


def _points(kind: str, unit: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    """A step for each."""
    return {f"{kind} {one['x']:,}, {one['path']}": {"kind": kind, "unit": unit, "points": [one]} for one in points}
