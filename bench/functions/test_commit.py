"""What moving a service costs, from the call to the kernel's word that it is done."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import pytest

from swapper.dataplane import ENGINES, open_dataplane
from swapper.dataplane.libnftables import Nftables
from swapper.dataplane.zones_nft import ZonesNft
from swapper.model import DataplaneName, Engine, PortMap, PortSet, Protocol, Service, Swap, Target

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from harness.netns import Net

pytestmark = pytest.mark.netns

SERVICE = Service("game", (PortMap(Protocol.UDP, 1000, Target(1001), Target(1002)),))
TO_AND_FRO = (PortSet.GREEN, PortSet.BLUE)


@pytest.mark.parametrize(
    ("name", "engine"), [(name, engine) for name, engines in ENGINES.items() for engine in engines], ids=str
)
def test_swap(netns_topology: Net, benchmark: BenchmarkFixture, name: DataplaneName, engine: Engine) -> None:
    with netns_topology["host"].entered():
        plane = open_dataplane(name, engine)
        plane.install(SERVICE, PortSet.BLUE)
        sets = cycle(TO_AND_FRO)

        def swap() -> PortSet:
            to = next(sets)
            plane.apply(Swap(SERVICE, to))
            return to

        assert benchmark(swap) is plane.observe(SERVICE).active


def test_libnftables_transaction(netns_topology: Net, benchmark: BenchmarkFixture) -> None:
    with netns_topology["host"].entered():
        plane = ZonesNft()
        plane.install(SERVICE, PortSet.BLUE)
        nft = Nftables()
        scripts = cycle([(to, plane.script(Swap(SERVICE, to))) for to in TO_AND_FRO])

        def commit() -> PortSet:
            to, script = next(scripts)
            nft.run(script)
            return to

        assert benchmark(commit) is plane.observe(SERVICE).active
