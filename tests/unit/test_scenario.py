"""A scenario that cannot be played is refused before anything is built."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

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


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"reorder_percent": 5}, "without a delay"),
        ({"delay_ms": 20, "sides": ("inside",)}, "there are none"),
        ({"loss_percent": 1, "payload": 4096}, "of at most 1400 bytes"),
        ({"loss_percent": 1, "backend": "push"}, "echoed datagrams"),
        ({"swaps": 0}, "only a bad link to show"),
        ({"loss_percent": 1, "udp": "drain"}, "no drain and no control"),
        ({"loss_percent": 1, "expect": "flush"}, "no drain and no control"),
        ({"loss_percent": 1, "swaps": 0, "udp": "drain", "expect": "drain"}, "no drain and no control"),
        ({"swaps": 0, "expect": "pinned"}, "only a bad link to show"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_link_that_cannot_be_told_from_the_swap_is_refused(bad: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Scenario(**bad)


def test_the_command_calls_it_wrong_usage() -> None:
    done = CliRunner().invoke(cli, ["run", "--rate", "1", "--seconds", "0.5", "--help"])
    assert done.exit_code == 0


@pytest.mark.parametrize(("word", "code"), [("kernels", 2), ("planes", 6)])
def test_only_what_plays_needs_root(word: str, code: int) -> None:
    script = f"import os; os.geteuid = lambda: 1000; from harness.cli import cli; cli([{word!r}, 'nowhere.json'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr


def test_the_command_that_the_harness_falls_back_to_is_there() -> None:
    done = subprocess.run([sys.executable, "-m", "swapper", "--help"], capture_output=True, text=True, check=True)
    assert "swap" in done.stdout
