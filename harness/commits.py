"""How long the swaps of a service take to commit, by the `swapper` command, with so many ports and live flows."""

from __future__ import annotations

import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.crowd import CROWDED, open_flows
from harness.netns import build
from harness.scenario import Scenario
from harness.specs import PUBLIC
from harness.switch import switch_for

if TYPE_CHECKING:
    from harness.pingpong import Route

__all__ = ["commits_ms"]

SWAPS: Final = 4
LAST_BEGINS_WITHIN_S: Final = 10.0


def commits_ms(route: Route, *, swaps: int = SWAPS) -> list[float]:
    """What `swapper swap` says of each commit, to and fro; fewer of them where one takes seconds, two at least.

    Before each the route's flows are live. Raises CalledProcessError when `swapper` refuses.
    """
    scenario = Scenario(dataplane=route.dataplane, engine=route.engine, ports=route.ports)
    with tempfile.TemporaryDirectory(prefix="swapper-") as folder, build(CROWDED) as net:
        switch = switch_for(scenario, CROWDED, net[CROWDED.host], Path(folder))
        switch.begin()
        found: list[float] = []
        last_s = time.monotonic() + LAST_BEGINS_WITHIN_S
        for to in islice(cycle(("green", "blue")), swaps):
            if len(found) >= 2 and time.monotonic() > last_s:
                break
            open_flows(net, port=PUBLIC, flows=route.flows, tracked=route.is_tracked)
            found.append(switch.swap(to))
    return found
