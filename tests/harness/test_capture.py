"""A run that fails leaves the packets around its swap, and says where."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.calibrate import held
from harness.scenario import Scenario, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.harness

FLUSHED = Scenario(
    name="a flush passed off as lossless",
    dataplane="classic",
    engine="iptables-nft",
    sides=("outside",),
    families=(4,),
    service_ms=20,
    seconds=2.5,
)


def test_a_failed_run_leaves_the_packets_around_its_swap_and_says_where(tmp_path: Path) -> None:
    record = run(held(FLUSHED), keep=tmp_path)
    assert record.verdict == "fail"
    assert record.why.endswith(f"packets around the swap: {record.pcap}")
    text = subprocess.run(
        ["tcpdump", "-tt", "-n", "-r", record.pcap], capture_output=True, text=True, check=True
    ).stdout
    times_s = [float(line.split()[0]) for line in text.splitlines()]
    ((begin_ns, end_ns),) = record.swaps_ns
    assert len(times_s) > record.scenario.rate_per_s / 2
    assert min(times_s) >= begin_ns / 1e9 - 0.51
    assert max(times_s) <= end_ns / 1e9 + 0.51
    assert min(times_s) < begin_ns / 1e9 < max(times_s)


def test_a_run_that_passes_leaves_nothing(tmp_path: Path) -> None:
    record = run(held(Scenario(sides=("outside",), families=(4,))), keep=tmp_path)
    assert (record.verdict, list(tmp_path.iterdir())) == ("pass", [])
