"""A proxy that the bench kills leaves nothing on the machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.proxies import PROXIES, started

if TYPE_CHECKING:
    from harness.netns import Net

pytestmark = pytest.mark.bench


def test_envoy_maps_no_shared_memory_that_would_outlive_it(netns_topology: Net, tmp_path: Path) -> None:
    (envoy,) = (proxy for proxy in PROXIES if proxy.name == "envoy")
    with started(envoy, netns_topology["host"], tmp_path, public=1000, backend=1001) as running:
        mapped = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in running.pids())
    assert ("envoy" in mapped, "envoy_shared_memory" in mapped) == (True, False)
