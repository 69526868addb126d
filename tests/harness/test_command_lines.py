"""The harness from its command line: documents, tables, exit codes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.calibrate import held
from harness.ledger import FATES
from harness.scenario import Scenario, run

pytestmark = pytest.mark.harness

HARNESS = Path(sys.executable).with_name("swapper-harness")


def types(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HARNESS, *words], cwd=folder, capture_output=True, text=True, check=False)


def test_one_scenario_prints_the_document_that_scripts_rely_on(tmp_path: Path) -> None:
    asked = held(Scenario(dataplane="stateless", sides=("outside",), families=(4,), rate_per_s=500, connected=False))
    options = ["--dataplane", "stateless", "--from", "outside", "--family", "4", "--unconnected", "--json", "-"]
    held_to = ["--rate", str(asked.rate_per_s), "--seconds", str(asked.seconds)]
    done = types(tmp_path, "run", *options, *held_to)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["version"], document["verdict"]) == (1, "pass")
    assert set(document) >= {"why", "scenario", "ledger", "blackout_ms", "rtt_us", "sender", "kernel", "host"}
    assert set(document["ledger"]) == {"sent", "duplicate", *FATES}
    assert sum(document["ledger"][fate] for fate in FATES) == int(asked.rate_per_s * asked.seconds)
    assert set(document["rtt_us"]) == {"p50", "p99", "p999", "max"}
    assert set(document["sender"]) == {"asked_per_s", "reached_per_s", "late_p99_us", "late_slots"}


def test_a_part_of_the_matrix_prints_a_table_and_writes_both_files(tmp_path: Path) -> None:
    files = ["--json", "all.json", "--report", "page.html"]
    done = types(tmp_path, "matrix", "--only", "every 50th", *files)
    assert done.returncode == 0, done.stderr
    assert "loses, as it must" in done.stdout
    document = json.loads((tmp_path / "all.json").read_text())
    assert [result["scenario"]["name"] for result in document["results"]] == ["every 50th dropped"]
    page = (tmp_path / "page.html").read_text()
    assert page.count("h0") > 100  # a stroke without length is a dot
    account = document["results"][0]["ledger"]
    assert page.count("v12") >= account["sent"] - account["answered_blue"] - account["answered_green"] > 1
    assert "http" not in page


def test_a_run_that_breaks_proves_nothing_and_says_why(tmp_path: Path) -> None:
    options = shlex.split("--dataplane stateless --engine iptables-nft --family 4 --seconds 1 --json -")
    done = types(tmp_path, "run", *options)
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "inconclusive"
    assert "swapper apply game" in document["why"]
    assert "engine" in document["why"].rpartition("ended with 2: ")[2]
    assert (document["exit_code"], document["said"] in document["why"]) == (2, True)


def test_only_what_swapper_ends_with_is_called_its_exit_code() -> None:
    record = run(Scenario(sides=("outside",), families=(4,), delay_ms=1, loss_percent=150))
    assert (record.verdict, record.exit_code, record.said) == ("inconclusive", 0, "")
    assert "tc -batch" in record.why


def test_what_is_not_in_the_matrix_is_a_mistake_that_names_what_is(tmp_path: Path) -> None:
    done = types(tmp_path, "matrix", "--only", "nothing like it")
    assert done.returncode == 2
    assert "zones nftables storm" not in done.stdout
    assert "zones nftables 20 swaps" in done.stderr
