"""The pytest plugin: the `netns` marker, and fixtures for a topology, backends, streams and a whole scenario.

Any project that installs the package gets it. Nothing heavy is imported before a fixture needs it.
"""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.netns import Net
    from harness.scenario import Record, Scenario
    from harness.workers import Worker

__all__ = [
    "Play",
    "Start",
    "netns_backend",
    "netns_logs",
    "netns_stream",
    "netns_topology",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "skip_without_root",
    "swap_scenario",
]

CAPTURES = Path("results")
LOG = logging.getLogger("harness")  # progress: shown by pytest's live logging, and with every failure


class Start(Protocol):
    """Starts one worker in a node; it ends with the test."""

    def __call__(self, net: Net, node: str, spec: dict[str, Any]) -> Worker:
        """The worker, ready."""


class Play(Protocol):
    """Plays a scenario and fails the test unless its verdict is `pass`."""

    def __call__(self, scenario: Scenario) -> Record:
        """The record, with its ledger."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "netns: needs root; runs in network namespaces of its own")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `netns` tests without root."""
    skip_without_root(items, "netns")


def skip_without_root(items: list[pytest.Item], *markers: str) -> None:
    """Skip the tests that carry one of `markers` without root, unless SWAPPER_NO_SKIP=1 says that none may be."""
    if os.geteuid() == 0 or os.environ.get("SWAPPER_NO_SKIP") == "1":
        return
    for item in items:
        if any(item.get_closest_marker(marker) for marker in markers):
            item.add_marker(pytest.mark.skip(reason="network namespaces and netfilter need root"))


@pytest.fixture
def netns_topology(request: pytest.FixtureRequest) -> Iterator[Net]:
    """A live topology for the length of the test: OUTSIDE_AND_HOST, or the one given by indirect parametrization."""
    from harness.netns import build
    from harness.topology import OUTSIDE_AND_HOST

    with build(getattr(request, "param", OUTSIDE_AND_HOST)) as net:
        yield net


@pytest.fixture
def netns_logs() -> Iterator[Path]:
    """A folder in memory for the logs of workers."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - only for a folder of mkdtemp
    with tempfile.TemporaryDirectory(prefix="swapper-", dir=where) as folder:
        yield Path(folder)


@pytest.fixture
def netns_backend() -> Iterator[Start]:
    """Start backends: echo, sink or push, on UDP and TCP (`harness.backends` says what a spec holds)."""
    yield from _starter("backend")


@pytest.fixture
def netns_stream() -> Iterator[Start]:
    """Start clients with steady streams (`harness.streams` says what a spec holds)."""
    yield from _starter("client")


@pytest.fixture
def swap_scenario() -> Play:
    """Play a scenario from topology to verdict; a verdict other than `pass` fails the test and says why."""
    from harness.matrix import play

    def run(scenario: Scenario) -> Record:
        (outcome,) = play([scenario], keep=CAPTURES, say=LOG.info)
        record = outcome.record
        if record.verdict != "pass":
            pytest.fail(f"{scenario.name}: {record.verdict}: {record.why}", pytrace=False)
        return record

    return run


def _starter(role: str) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(net: Net, node: str, spec: dict[str, Any]) -> Worker:
            return stack.enter_context(net[node].spawn(role, spec))

        yield start
