"""Fixtures: the compiled backend, and a deployed service of processes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.netns import build
from harness.topology import OUTSIDE_AND_HOST
from tests.deploy.deployed import Deployed, compiled

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backend, compiled once."""
    return compiled(tmp_path_factory.mktemp("binary"))


@pytest.fixture
def town(binary: Path) -> Iterator[Deployed]:
    """A service of processes, its files in memory; nothing of it outlives the test."""
    with build(OUTSIDE_AND_HOST) as net, tempfile.TemporaryDirectory(prefix="swapper-", dir="/dev/shm") as folder:
        deployed = Deployed(net, Path(folder), binary)
        try:
            yield deployed
        finally:
            deployed.clean()
