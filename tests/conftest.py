"""What needs root is skipped without it, unless SWAPPER_NO_SKIP=1 says that nothing may be skipped."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """As the plugin does for `netns`."""
    if os.geteuid() == 0 or os.environ.get("SWAPPER_NO_SKIP") == "1":
        return
    for item in items:
        if item.get_closest_marker("root") or item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="programming netfilter needs root"))
