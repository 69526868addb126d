"""The tests' own markers need root as the plugin's does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.plugin import skip_without_root

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`root` and `soak`, which pyproject.toml explains."""
    skip_without_root(items, "root", "soak")
