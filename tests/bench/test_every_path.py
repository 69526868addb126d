"""One short round of the bench: every path is there, and was measured."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bench.parts import paths

pytestmark = pytest.mark.bench

BENCH = Path(sys.executable).with_name("swapper-bench")


def test_the_bench_measures_every_path(tmp_path: Path) -> None:
    options = shlex.split("--quick --rounds 1 --seconds 5 --only rtt --json bench.json")
    done = subprocess.run([BENCH, "run", *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "bench.json").read_text())
    assert (document["version"], document["missing"], document["failed"]) == (3, {}, {})
    found = paths.summary(document["measured"]["rtt"], seed=1)
    assert set(found) == {kind.name for kind in paths.KINDS}
    assert {one.name for one in found["two cores"]} >= {"zones nftables", "nginx", "envoy", "docker-proxy", "socat"}
    assert {one.name for one in found["tcp connect"]} >= {"zones nftables", "nginx", "haproxy", "docker-proxy", "socat"}
    for kind in found.values():
        assert kind[0].name == "direct"
        assert all(one.p50_us > 0 and one.low <= one.ratio <= one.high for one in kind)
