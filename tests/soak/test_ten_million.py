"""Ten million datagrams, of which each gets its fate."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests import support
from tests.accounting import SILENT, effort_of, write_logs

pytestmark = pytest.mark.soak

COUNT = 10_000_000


def test_ten_million_datagrams_take_under_ten_seconds_and_two_gigabytes() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_logs(Path(folder), COUNT)
        found = effort_of(Path(folder), COUNT)
    support.MEASURED.info("accounting for %d datagrams: %.1f s, %.0f MiB at most", COUNT, found.cpu_s, found.peak_mib)
    assert found.totals["lost_down"] == COUNT // SILENT
    assert found.totals["answered_blue"] + found.totals["answered_green"] == COUNT - COUNT // SILENT
    assert found.cpu_s < 10
    assert found.peak_mib < 2000
