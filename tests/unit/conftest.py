"""The webhook server in this process, for the tests that deliver to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from swapper.config import Config
    from tests.in_process import Server


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Two services; a release of the game goes to both."""
    from tests.in_process import CHAT, GAME, configuration

    return configuration(tmp_path, game=GAME, chat=CHAT)


@pytest.fixture
def server(config: Config) -> Iterator[Server]:
    """It serves them, and its clock stands still."""
    from tests.in_process import running

    with running(config) as server:
        yield server
