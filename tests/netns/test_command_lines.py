"""The harness and the bench from their command lines: documents, tables, exit codes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.parts import paths
from harness.ledger import FATES

pytestmark = pytest.mark.netns

BIN = Path(sys.executable).parent


def types(folder: Path, command: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / command, *words], cwd=folder, capture_output=True, text=True, check=False)


def test_one_scenario_prints_the_document_that_scripts_rely_on(tmp_path: Path) -> None:
    options = shlex.split("--dataplane stateless --from outside --family 4 --rate 500 --unconnected --seconds 2")
    done = types(tmp_path, "swapper-harness", "run", *options, "--json", "-")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["version"], document["verdict"]) == (1, "pass")
    assert set(document) >= {"why", "scenario", "ledger", "blackout_ms", "rtt_us", "sender", "kernel", "host"}
    assert set(document["ledger"]) == {"sent", "duplicate", *FATES}
    assert sum(document["ledger"][fate] for fate in FATES) == 1000
    assert set(document["rtt_us"]) == {"p50", "p99", "p999", "max"}
    assert set(document["sender"]) == {"asked_per_s", "reached_per_s", "late_p99_us", "late_slots"}


def test_a_part_of_the_matrix_prints_a_table_and_writes_both_files(tmp_path: Path) -> None:
    files = ["--json", "all.json", "--report", "page.html"]
    done = types(tmp_path, "swapper-harness", "matrix", "--only", "every 50th", *files)
    assert done.returncode == 0, done.stderr
    assert "loses, as it must" in done.stdout
    document = json.loads((tmp_path / "all.json").read_text())
    assert [result["scenario"]["name"] for result in document["results"]] == ["every 50th dropped"]
    page = (tmp_path / "page.html").read_text()
    assert page.count("h0") > 100  # a stroke without length is a dot
    assert page.count("v12") > 10
    assert "http" not in page


def test_a_run_that_breaks_proves_nothing_and_says_why(tmp_path: Path) -> None:
    options = shlex.split("--dataplane stateless --engine iptables-nft --family 4 --seconds 1 --json -")
    done = types(tmp_path, "swapper-harness", "run", *options)
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "inconclusive"
    assert "swapper apply game" in document["why"]
    assert "engine" in document["why"].rpartition("ended with 2: ")[2]


def test_what_is_not_in_the_matrix_is_a_mistake_that_names_what_is(tmp_path: Path) -> None:
    done = types(tmp_path, "swapper-harness", "matrix", "--only", "nothing like it")
    assert done.returncode == 2
    assert "zones nftables storm" not in done.stdout
    assert "zones nftables 20 swaps" in done.stderr


def test_the_bench_measures_every_path(tmp_path: Path) -> None:
    options = shlex.split("--quick --rounds 1 --seconds 5 --only rtt --json bench.json")
    done = types(tmp_path, "swapper-bench", "run", *options)
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
