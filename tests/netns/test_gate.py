"""The gate gates: a product that was broken on purpose does not pass, for the right reason."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import swapper

pytestmark = pytest.mark.netns

BENCH = Path(sys.executable).with_name("swapper-bench")
BUDGET = """
[[limit]]
name = "zones lose nothing"
swap = "zones nftables"
lost = 0
reason = "the promise"
"""


def gated(folder: Path, **replaced: tuple[str, str, str]) -> subprocess.CompletedProcess[str]:
    """The gate's word on a copy of the product in which texts were replaced: (file, before, after)."""
    copy = folder / "product"
    shutil.copytree(Path(str(swapper.__file__)).parent, copy / "swapper")
    for file, before, after in replaced.values():
        path = copy / "swapper" / file
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))
    (folder / "budget.toml").write_text(BUDGET)
    return subprocess.run(
        [BENCH, "gate", "--budget", "budget.toml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_product_as_it_is_passes(tmp_path: Path) -> None:
    done = gated(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0 of 6000, below 5.0e-04 at 95 %" in done.stdout


def test_a_flush_after_the_swap_is_a_regression(tmp_path: Path) -> None:
    flushed = "moved_ms = plane.apply(swap); __import__('swapper.flows').flows.flush(); return moved_ms"
    done = gated(tmp_path, flush=("operations.py", "return plane.apply(swap)", flushed))
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.search(r"lost (\d+) of 6000", done.stdout)
    assert found
    assert 20 <= int(found[1]) <= 60  # rate x service time
    assert "the promise; see it again: swapper-bench run --only swaps" in done.stdout


def test_a_swap_that_fails_proves_nothing(tmp_path: Path) -> None:
    done = gated(
        tmp_path, fails=("operations.py", "return plane.apply(swap)", "raise SwapperError('broken on purpose')")
    )
    assert (done.returncode, "broken on purpose" in done.stdout) == (3, True), done.stdout + done.stderr


def test_results_can_be_judged_again(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("{}")
    done = subprocess.run(
        [BENCH, "gate", "--json", "bench.json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "is not a result of swapper-bench run" in done.stderr) == (2, True)
