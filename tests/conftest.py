"""The tests' own markers need root as the plugin's does."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from harness.plugin import skip_without_root

if TYPE_CHECKING:
    from pathlib import Path


def pytest_configure() -> None:
    """Ctrl-C reaches what the tests start, also where these run in the background, whose jobs a shell has ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that pyproject.toml explains."""
    skip_without_root(items, "root", "harness", "deploys", "bench", "soak")


@pytest.fixture
def logs(netns_logs: Path) -> Path:
    """The plugin's, by a shorter name."""
    return netns_logs
