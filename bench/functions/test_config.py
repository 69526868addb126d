"""What reading the configuration costs; every command begins with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from swapper.config import load

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture


@pytest.mark.parametrize("ports", [2, 1_000])
def test_load(tmp_path: Path, benchmark: BenchmarkFixture, ports: int) -> None:
    path = tmp_path / "swapper.toml"
    entries = (
        f'  {{ protocol = "udp", public = {10_000 + n}, blue = {20_000 + n}, green = {30_000 + n} }},\n'
        for n in range(ports)
    )
    path.write_text(f"[services.game]\nports = [\n{''.join(entries)}]\n")
    assert len(benchmark(load, path).services["game"].ports) == ports
