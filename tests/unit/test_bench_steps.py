"""A run as values: which steps it has, what its journal comes to, how long it takes, and whether it was quiet."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from bench.document import assembled
from bench.measure import Wanted, all_steps
from bench.noise import again_ratio, judged
from bench.parts.swaps import TECHNIQUES, steps
from bench.processors import Reading, Usage, between
from bench.progress import Estimate
from bench.proxies import PROXIES
from bench.step import Plan
from bench.table import lines

QUIET = Usage(seconds=10, busy=0.05, others=0.01, stolen=0.0, load_1min=0.1)
HEADER: dict[str, Any] = {
    "options": {"seed": 1, "parts": ["rtt", "swaps"]},
    "environment": {"kernel": "6.18"},
    "missing": {"envoy": "envoy is not on this host"},
}
ORPHAN = """
import os, subprocess, sys
from bench.processors import adopt_orphans, reading
adopt_orphans()
before = reading()
parent = subprocess.run(["sh", "-c", f"({sys.argv[1]}) >&- & echo $!"], stdout=subprocess.PIPE, check=True)
os.waitpid(int(parent.stdout), 0)
print(reading().own_user - before.own_user)
"""
USAGE = {"seconds": 10.0, "busy": 0.5, "others": 0.01, "stolen": 0.0, "load_1min": 0.1}


def entry(step: str, part: str = "swaps", **found: Any) -> dict[str, Any]:
    return {"part": part, "step": step, "usage": USAGE, **found}


def test_every_round_has_every_technique_once_in_an_order_of_its_own() -> None:
    names = [step.name for step in steps(Plan(rounds=3, proxies=PROXIES))]
    rounds = [names[at : at + len(TECHNIQUES)] for at in range(0, len(names), len(TECHNIQUES))]
    wanted = {one.name for one in TECHNIQUES}
    assert [{name.rpartition(", round ")[0] for name in found} for found in rounds] == [wanted] * 3
    assert len({tuple(name.rpartition(", ")[0] for name in found) for found in rounds}) == 3
    assert names == [step.name for step in steps(Plan(rounds=3, proxies=PROXIES))]
    assert names != [step.name for step in steps(Plan(rounds=3, proxies=PROXIES, seed=2))]


def test_a_proxy_that_is_missing_has_no_steps() -> None:
    names = [step.name for step in steps(Plan(rounds=1, proxies=tuple(p for p in PROXIES if p.name != "nginx")))]
    assert not [name for name in names if name.startswith("nginx")]
    assert Counter(name.partition(",")[0] for name in names)["haproxy"] == 1


def test_a_quick_plan_leaves_out_what_no_proxy_is_compared_with() -> None:
    names = {step.name.rpartition(", round ")[0] for step in steps(Plan(rounds=1, quick=True, proxies=PROXIES))}
    left_out = {one.name for one in TECHNIQUES} - names
    assert len(left_out) == 4
    assert all(name.endswith(", all sides") for name in left_out)


@pytest.mark.parametrize(("wanted", "most_s"), [(Wanted.quickly(), 175), (Wanted(), 29 * 60)], ids=["quick", "full"])
def test_all_parts_together_fit_into_what_is_promised(wanted: Wanted, most_s: float) -> None:
    assert sum(step.about_s for step in all_steps(wanted, wanted.plan(PROXIES))) < most_s


def test_what_an_orphan_of_the_bench_used_is_its_own() -> None:
    counting = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
    done = subprocess.run([sys.executable, "-c", ORPHAN, counting], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0.05


def test_a_journal_comes_to_a_document() -> None:
    entries = [
        {"at_rest": USAGE},
        entry("zones, round 1", value={"lost": 0}),
        entry("nginx, round 1", failed="nginx ended with 1: no such port"),
        entry("socat, round 1", failed="socat ended with 1"),
        {"at_rest": USAGE},
        entry("socat, round 1", value={"lost": 9}),
    ]
    document = assembled(HEADER, entries)
    assert document["measured"] == {
        "rtt": {},
        "swaps": {"zones, round 1": {"lost": 0}, "socat, round 1": {"lost": 9}},
    }
    assert document["failed"] == {"swaps/nginx, round 1": "nginx ended with 1: no such port"}
    assert document["missing"] == HEADER["missing"]
    assert len(document["environment"]["load"]["at_rest"]) == 2
    assert document["environment"]["load"]["steps"]["swaps/zones, round 1"] == USAGE
    assert document["noise"]["busy"] is False


def test_what_is_left_is_learned_from_what_the_steps_took() -> None:
    left = Estimate(600)
    assert str(left) == "about 10 min left"
    left.learn(100, 200)
    assert str(left) == "about 17 min left"  # 500 s, at twice what they say
    left.learn(460, 920)
    assert str(left) == "about 80 s left"


def test_what_others_used_is_told_from_what_the_bench_used() -> None:
    before = Reading(at_s=100, user=50, busy=80, stolen=1, own_user=10)
    after = Reading(at_s=110, user=58, busy=95, stolen=1.5, own_user=15)
    usage = between(before, after)
    assert (usage.seconds, usage.busy, usage.others, usage.stolen) == (10, 1.5, 0.3, 0.05)


def test_a_quiet_machine_gives_a_verdict() -> None:
    found = judged(at_rest=[QUIET], timed=[QUIET], again_ratio=1.004)
    assert (found.busy, found.why, found.others) == (False, "", 0.01)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"at_rest": [QUIET, replace(QUIET, busy=0.9)]}, "others used 0.90 processors before it began"),
        (
            {"timed": [QUIET, replace(QUIET, seconds=30, others=0.41)]},
            "others used 0.31 processors while round trips were timed",
        ),
        ({"timed": [replace(QUIET, stolen=0.05)]}, "the hypervisor took 0.050 processors away"),
        ({"again_ratio": 1.02}, "a second direct path took 1.020 times as long"),
        ({"again_ratio": 0.98}, "a second direct path took 0.980 times as long"),
    ],
)
def test_a_machine_too_noisy_for_a_verdict_says_why(changes: dict[str, Any], why: str) -> None:
    wanted: dict[str, Any] = {"at_rest": [QUIET], "timed": [QUIET], "again_ratio": 1.0, **changes}
    found = judged(**wanted)
    assert found.busy
    assert found.why.startswith(why)


def test_the_second_direct_path_is_compared_turn_by_turn() -> None:
    def routes(*again_us: float) -> dict[str, Any]:
        return {"direct": {"turns_us": [10.0, 20.0]}, "direct, again": {"turns_us": list(again_us)}}

    rtt = {
        "two cores, round 1": routes(10, 22),
        "two cores, round 2": routes(12, 24),
        "one core, round 1": routes(90, 90),
    }
    assert again_ratio(rtt) == pytest.approx(1.15)
    assert again_ratio({"two cores, round 1": {"direct": {"turns_us": [10.0]}}}) is None


def test_the_summary_adds_rounds_up_and_names_what_proves_nothing() -> None:
    def swap(lost: int, verdict: str = "fail", **tcp: int) -> dict[str, Any]:
        fates = dict.fromkeys(("lost_up", "misaddressed", "misdelivered", "corrupted", "receiver_dropped"), 0)
        return {
            "technique": "nginx, reload",
            "verdict": verdict,
            "why": "the sender was late",
            "ledger": {"sent": 4000, "lost_down": lost, **fates},
            "blackout_ms": lost / 2,
            "tcp": tcp,
        }

    swaps = {"1": swap(20), "2": swap(30), "3": swap(999, "inconclusive")}
    _, row, unproved = lines({"measured": {"swaps": swaps}})
    assert row.split() == ["nginx,", "reload", "8,000", "50", "12.5"]
    assert unproved.endswith("proves nothing: the sender was late")
