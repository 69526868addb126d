"""Accounting takes time and memory in proportion; tests/soak has the ten million that README speaks of."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.accounting import SILENT, effort_of, write_logs

COUNT = 1_000_000
INTERPRETER_MIB = 60  # Python and numpy, before there is a log


def test_a_million_datagrams_take_a_second_and_two_hundred_megabytes() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_logs(Path(folder), COUNT)
        found = effort_of(Path(folder), COUNT)
    lost = COUNT // SILENT
    assert (found.totals["lost_down"], found.totals["answered_blue"] + found.totals["answered_green"]) == (
        lost,
        COUNT - lost,
    )
    assert found.cpu_s < 1
    assert found.peak_mib < INTERPRETER_MIB + 200
