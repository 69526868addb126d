"""What `swapper status` and `swapper swap --dry-run` cost once they are loaded: the kernel is read, not changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from swapper.config import load
from swapper.dataplane import ENGINES
from swapper.model import PortSet
from swapper.operations import Host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

    from harness.netns import Net

pytestmark = pytest.mark.netns

PLANES = [f"{name} {engine}" for name, engines in ENGINES.items() for engine in engines]


@pytest.fixture(params=PLANES)
def host(request: pytest.FixtureRequest, netns_topology: Net, tmp_path: Path) -> Iterator[Host]:
    """A host that carries one service, in whose namespace the benchmark then runs."""
    dataplane, engine = request.param.split()
    path = tmp_path / "swapper.toml"
    path.write_text(
        f'state_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n'
        f'[services.game]\ndataplane = "{dataplane}"\nengine = "{engine}"\n'
        'ports = [{ protocol = "udp", public = 1000, blue = 1001, green = 1002 }]\n'
    )
    with netns_topology["host"].entered():
        host = Host(load(path))
        host.apply(host.service("game"))
        yield host


def test_status(host: Host, benchmark: BenchmarkFixture) -> None:
    assert benchmark(host.status, host.service("game")).in_sync


def test_plan(host: Host, benchmark: BenchmarkFixture) -> None:
    planned = benchmark(host.dry_run, host.service("game"), None)
    assert (planned.to, planned.script != "") == (PortSet.GREEN, True)
