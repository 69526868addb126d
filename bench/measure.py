"""One bench run: every path's round trips, then every technique's swap, with progress; a document of results."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.environment import NOISY_LOAD, described
from bench.paths import DATAPLANES, HOPS, compare, usable
from bench.swaps import TECHNIQUES, measured
from harness import pingpong

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PARTS", "measure", "round_trips"]

PARTS = ("rtt", "swaps")
SWAP_S = 6.0  # about, for each technique


def measure(
    *,
    parts: tuple[str, ...],
    seconds: float,
    seed: int,
    say: Callable[[str], None],
    only: Callable[[str], bool] = lambda _: True,
) -> dict[str, Any]:
    """Measure the parts: round trips for `seconds` in all, and the swaps of the techniques that `only` names.

    Needs root and the main thread.
    """
    environment = described()
    document: dict[str, Any] = {
        "seed": seed,
        "environment": environment,
        # Load counts for minutes: what was measured just before would make its own successor noisy.
        "noisy": _is_busy(),
        "missing": {},
        "rtts_us": {"two cores": {}, "one core": {}},
        "comparisons": {"two cores": [], "one core": []},
        "swaps": [],
    }
    if "rtt" in parts:
        document |= round_trips(seconds=seconds, seed=seed, say=say)
    techniques = [one for one in TECHNIQUES if "swaps" in parts and only(one[0])]
    for number, technique in enumerate(techniques):
        say(f"[{number + 1}/{len(techniques)}] {technique[0]}, about {(len(techniques) - number) * SWAP_S:.0f} s left")
        document["swaps"].append(measured(technique, lambda _: None))
    environment["load_1min_after"] = os.getloadavg()[0]
    return document


def round_trips(*, seconds: float, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The round trips of every path that comes up here, and how they compare with the direct one."""
    hops, missing = usable(HOPS)
    # A proxy is a process with cores of its own choice, so on one core there is nothing fair to compare it with.
    chosen = {"two cores": (*DATAPLANES, *hops), "one core": DATAPLANES}
    rtts_us = {}
    for cores, routes in chosen.items():
        share_s = seconds * len(routes) / sum(map(len, chosen.values()))
        say(f"{len(routes)} paths, client and backend on {cores}, {share_s:.0f} s")
        rtts_us[cores] = pingpong.rtts_us(routes, seconds=share_s, seed=seed, one_core=cores == "one core")
    comparisons = {cores: [asdict(one) for one in compare(found, seed=seed)] for cores, found in rtts_us.items()}
    return {"missing": missing, "rtts_us": rtts_us, "comparisons": comparisons}


def _is_busy() -> bool:
    """Whether others keep this machine's processors busy just now, by what they use in half a second."""
    began, idle_began = time.monotonic(), _idle_s()
    time.sleep(0.5)
    cores = os.cpu_count() or 1
    used = cores - (_idle_s() - idle_began) / (time.monotonic() - began)
    return used > NOISY_LOAD / 2


def _idle_s() -> float:
    """What all processors together have idled since boot (proc_uptime(5))."""
    with open("/proc/uptime", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
        return float(file.read().split()[1])
