"""A run of the bench for real: held by another, on a full disk, interrupted, gone on with, without a proxy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import results
from bench.journal import Journal, read
from bench.parts.swaps import TECHNIQUES, measured, steps
from bench.proxies import PROXIES, ProxyError, started
from bench.step import Plan
from harness.netns import build
from harness.topology import OUTSIDE_AND_HOST
from tests.support import small_disk

pytestmark = pytest.mark.bench

BENCH = Path(sys.executable).with_name("swapper-bench")
HAVE = tuple(proxy for proxy in PROXIES if proxy.name != "socat")


class Run:
    """`swapper-bench run` for one results file, on a host whose socat does not work."""

    def __init__(self, folder: Path, path: Path) -> None:
        programs = folder / "programs"
        programs.mkdir()
        (programs / "socat").write_text("#!/bin/sh\necho broken on purpose\nexit 1\n")
        (programs / "socat").chmod(0o755)
        self.path, self.journal = path, path.with_name(f"{path.name}.journal")
        self.environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}

    def begin(self, *options: str) -> subprocess.Popen[str]:
        """Start it."""
        argv = [str(BENCH), "run", "--only", "swaps", "--rounds", "1", "--json", str(self.path), *options]
        return subprocess.Popen(
            argv, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.path.parent
        )

    def says(self, process: subprocess.Popen[str], what: str) -> None:
        """Wait until it says that on standard error."""
        assert process.stderr
        heard = ""
        while what not in heard:
            line = process.stderr.readline()
            assert line, f"never said {what!r}, but: {heard}"
            heard += line

    def ends(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        """Its exit code, and what it still says on both outputs."""
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def pretend_all_but(self, name: str) -> None:
        """Put every other step into the journal, as if it had been measured."""
        kept = read(self.journal)
        assert kept
        value = {"technique": "pretended", "verdict": "inconclusive", "why": "not measured by this test"}
        usage = {"seconds": 1.0, "busy": 0.0, "others": 0.0, "stolen": 0.0, "load_1min": 0.0}
        with Journal.resumed(self.journal, kept) as journal:
            for step in steps(Plan(rounds=1, proxies=HAVE)):
                if step.name != name:
                    journal.add({"part": step.part, "step": step.name, "value": value, "usage": usage})


def test_a_run_is_held_and_outlives_a_full_disk_and_an_interruption(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "256k") as disk:
        run = Run(tmp_path, disk / "bench.json")
        first = run.begin()
        run.says(first, "[1/")

        code, _, err = run.ends(run.begin())
        assert (code, f"is held by process {first.pid} (swapper-bench run" in err) == (5, True), err

        subprocess.run(["dd", "if=/dev/zero", f"of={disk}/full", "bs=1k"], capture_output=True, check=False)
        code, _, err = run.ends(first)
        assert (code, f"{run.journal}: cannot be written: No space left on device" in err) == (2, True), err
        assert "Traceback" not in err
        assert sorted(path.name for path in disk.iterdir()) == ["bench.json.journal", "full"]

        (disk / "full").unlink()
        second = run.begin()
        run.says(second, "goes on where it was interrupted, with 0 steps measured")
        run.says(second, "[1/")
        second.send_signal(signal.SIGINT)
        code, _, err = run.ends(second)
        assert (code, "the same command goes on from there" in err) == (130, True), err

        run.pretend_all_but("zones nftables, round 1")
        code, out, err = run.ends(run.begin())
        assert code == 0, err
        document = results.read(run.path)
        assert [path.name for path in disk.iterdir()] == ["bench.json"]
    assert "without socat: socat ended with 1: broken on purpose" in err
    assert document["missing"] == {"socat": "socat ended with 1: broken on purpose"}
    found = document["measured"]["swaps"]["zones nftables, round 1"]
    assert (found["verdict"], found["ledger"]["lost_down"]) == ("pass", 0)
    assert found["timeline"]["due_ms"]
    assert any(line.split()[:3] == ["zones", "nftables", "5,000"] for line in out.splitlines())
    assert document["environment"]["offloads"]["tx-checksum-ip-generic"] in (True, False)
    assert len(document["environment"]["load"]["at_rest"]) == 3


def test_a_run_of_another_kind_is_not_gone_on_with(tmp_path: Path) -> None:
    run = Run(tmp_path, tmp_path / "bench.json")
    with Journal.begun(run.journal, {"version": 3, "options": {"seed": 9}, "missing": {}}):
        pass
    process = run.begin("--seed", "4")
    run.says(process, "starts anew, the interrupted run was of another kind")
    run.says(process, "[1/")
    process.send_signal(signal.SIGTERM)
    assert run.ends(process)[0] == 128 + signal.SIGTERM
    header = json.loads(run.journal.read_text().splitlines()[0])
    assert (header["options"]["seed"], header["options"]["rounds"]) == (4, 1)


def test_a_proxy_that_does_not_start_is_named_with_its_log(tmp_path: Path) -> None:
    docker_proxy = next(proxy for proxy in PROXIES if proxy.name == "docker-proxy")
    with build(OUTSIDE_AND_HOST) as net:
        front = started(docker_proxy, net["host"], tmp_path, public=70_000, backend=1001)
        with pytest.raises(ProxyError, match=r"(?s)docker-proxy ended with 1: .*invalid argument"), front:
            pass


def test_connections_through_a_proxy_are_counted_across_its_switch() -> None:
    technique = next(one for one in TECHNIQUES if one.name == "haproxy, TCP, runtime interface")
    found = measured(technique._replace(scenario=replace(technique.scenario, seconds=1)), timeline=False)
    assert (found["proxy"], found["verdict"], found["timeline"]) == ("haproxy", "pass", None), found["why"]
    assert found["tcp"]["kept"] == 8
    assert (found["tcp"]["broken"], found["tcp"]["new_after_swap"] > 0) == (0, True)
