"""The pytest plugin works in a project that has nothing but the package installed."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.harness

FOREIGN_TEST = """
import pytest
from harness.scenario import Scenario

@pytest.mark.netns
def test_the_fixtures_are_there(netns_topology, netns_logs, netns_backend):
    listen = [{"family": 4, "port": 1000}]
    spec = {"who": 1, "run": 1, "listen": listen, "log": str(netns_logs / "log"), "capacity": 10}
    worker = netns_backend(netns_topology, "host", spec)
    assert worker.stop()["seen"] == 0

@pytest.mark.netns
def test_a_swap_that_moves_nothing_fails(swap_scenario):
    with pytest.raises(pytest.fail.Exception, match="inconclusive"):
        swap_scenario(Scenario(swap_command="true", seconds=0.5, rate_per_s=200, sides=("outside",)))
"""


def test_a_foreign_project_gets_marker_and_fixtures(tmp_path: Path) -> None:
    (tmp_path / "test_foreign.py").write_text(FOREIGN_TEST, encoding="ascii")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
