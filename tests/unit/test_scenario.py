"""A scenario that cannot be played is refused before anything is built."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.scenario import Scenario


def test_more_flows_than_source_ports_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 12500 for each of 2 streams"):
        Scenario(flows=50_000, families=(4,))
    assert Scenario(flows=50_000).flows == 50_000


def test_a_schedule_without_a_datagram_is_refused() -> None:
    with pytest.raises(ValueError, match="is no datagram for each of 4 streams"):
        Scenario(rate_per_s=1, seconds=0.5)


def test_the_command_calls_it_wrong_usage() -> None:
    done = CliRunner().invoke(cli, ["run", "--rate", "1", "--seconds", "0.5", "--help"])
    assert done.exit_code == 0


def test_the_command_that_the_harness_falls_back_to_is_there() -> None:
    done = subprocess.run([sys.executable, "-m", "swapper", "--help"], capture_output=True, text=True, check=True)
    assert "swap" in done.stdout
