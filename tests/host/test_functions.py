"""The benchmarks of `./dev bench functions` run: each once, without a measurement."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]


def test_every_benchmark_does_what_it_measures() -> None:
    argv = [sys.executable, "-m", "pytest", "bench/functions", "--benchmark-disable", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "passed" in done.stdout) == (0, True), done.stdout
