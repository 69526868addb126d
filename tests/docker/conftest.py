"""The fixtures of containers: one engine for all tests of this folder, and a service on it for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.netns import build
from harness.topology import OUTSIDE_AND_HOST
from tests.deploy.fixtures import binary, town
from tests.docker.engines import SUBNET, Bridged, Contained, Engine, deployed, short_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["binary", "bridged", "contained", "engine", "one_engine", "town"]


@pytest.fixture(scope="session")
def one_engine() -> Iterator[Engine]:
    """One engine for all tests that need one."""
    with build(OUTSIDE_AND_HOST) as net, short_folder() as folder:
        made = Engine(net, folder)
        try:
            made.docker("network", "create", "--subnet", SUBNET, "game")
            yield made
        finally:
            made.stop()


@pytest.fixture
def engine(one_engine: Engine) -> Engine:
    """The engine; one that a failed test has killed is started again."""
    if one_engine.docker("info", check=False).returncode:
        one_engine.kill()
        one_engine.start()
    return one_engine


@pytest.fixture
def contained(engine: Engine, binary: Path) -> Iterator[Contained]:
    """A service of containers on the host's network."""
    with deployed(Contained, engine, binary) as service:
        yield service


@pytest.fixture
def bridged(engine: Engine, binary: Path) -> Iterator[Contained]:
    """A service of containers behind a bridge."""
    with deployed(Bridged, engine, binary) as service:
        yield service
