"""The gate's judgement: from evidence to verdicts, and what a budget may say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import results
from bench.gate import budget, evidence, table
from bench.gate import verdict as judge
from bench.gate.budget import Known, Limit
from bench.gate.evidence import Evidence
from bench.gate.trial import KNOWN
from harness.ledger import FATES

BENCH = Path(sys.executable).with_name("swapper-bench")
ZONES = Limit("zones lose nothing", "the promise", swap="zones")
CONTROL = Limit("a flush shows its loss", "the control", swap="flush", lost="rate x service time")
QUICK = Limit("zones are quick", "a lookup", path="zones", ratio=1.12)
NO_SLOWER = Limit("no slower", "step by step", path="zones", against="base", ratio=1.02)


def swap(verdict: str = "pass", why: str = "because", **fates: int) -> dict[str, Any]:
    answered = {"sent": 6000, "answered_green": 6000 - sum(fates.values())}
    ledger = dict.fromkeys((*FATES, "duplicate"), 0) | answered | fates
    return {"technique": "zones", "verdict": verdict, "why": why, "ledger": ledger}


def turns(**ratios: float) -> dict[str, list[float]]:
    """A hundred turns by each path; a direct one takes 30 us and a little more or less."""
    direct = [30 + turn % 7 / 10 for turn in range(100)]
    found = {name.replace("_", ", "): [value * ratio for value in direct] for name, ratio in ratios.items()}
    return {"direct": direct, **found}


def found(limit: Limit, shown: Evidence) -> tuple[str, str]:
    (finding,) = judge.judged([limit], shown)
    return finding.verdict, finding.found


def test_one_lost_datagram_breaks_a_limit_of_none_and_says_how() -> None:
    shown = Evidence({"zones": [swap("fail", misaddressed=1)]})
    assert found(ZONES, shown) == ("fail", "lost 1 of 6000 (1 misaddressed), 1 too many")


def test_nothing_lost_is_said_with_its_bound_over_all_rounds() -> None:
    assert found(ZONES, Evidence({"zones": [swap()] * 3})) == (
        "pass",
        "lost 0 of 18000 in 3 swaps, below 1.7e-04 at 95 %",
    )


def test_losses_of_all_rounds_count_together() -> None:
    shown = Evidence({"zones": [swap("fail", lost_up=4), swap(), swap("fail", lost_down=2)]})
    assert found(ZONES, shown) == ("fail", "lost 6 of 18000 in 3 swaps (4 lost_up, 2 lost_down), 6 too many")


def test_what_is_wrong_without_a_loss_fails_where_nothing_may_be_lost() -> None:
    astray = swap("fail", "9 datagrams from outside, IPv4 reached the old set after swap 1")
    assert found(ZONES, Evidence({"zones": [astray]})) == ("fail", astray["why"])


def test_a_limit_above_none_is_for_each_swap() -> None:
    limit = Limit("a reload loses little", "of a proxy", swap="zones", lost=3)
    assert found(limit, Evidence({"zones": [swap("fail", lost_up=3)] * 2}))[0] == "pass"
    assert found(limit, Evidence({"zones": [swap("fail", lost_up=4), swap()]})) == (
        "fail",
        "lost 4 of 12000 in 2 swaps (4 lost_up), 1 too many",
    )


def test_a_limit_above_none_allows_losses_and_nothing_else() -> None:
    limit = Limit("a reload loses little", "of a proxy", swap="zones", lost=3)
    astray = swap("fail", "9 datagrams from outside, IPv4 reached the old set after swap 1")
    assert found(limit, Evidence({"zones": [swap("fail", lost_up=3), astray]})) == ("fail", astray["why"])


@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive"])
def test_a_control_is_held_to_its_own_model(verdict: str) -> None:
    shown = Evidence({"flush": [swap(), swap(verdict, "41 replies in flight", misaddressed=41)]})
    assert found(CONTROL, shown) == (verdict, "41 replies in flight")


def test_a_round_that_proves_nothing_leaves_a_limit_unproved_but_hides_no_loss() -> None:
    broken = swap("inconclusive", "swapper swap game ended with 1")
    broken["ledger"] = {}
    assert found(ZONES, Evidence({"zones": [swap(), broken]})) == ("inconclusive", broken["why"])
    assert found(ZONES, Evidence({"zones": [swap("fail", lost_up=1), broken]}))[0] == "fail"


def test_what_was_not_measured_proves_nothing_and_says_why() -> None:
    assert found(ZONES, Evidence()) == ("inconclusive", "zones was not measured")
    shown = Evidence({"zones": [swap()]}, absent={"zones": "no space left on device"})
    assert found(ZONES, shown) == ("inconclusive", "zones was not measured: no space left on device")
    assert found(QUICK, Evidence(rounds_us=[turns()])) == ("inconclusive", "zones was not measured")


def test_the_base_stands_beside_and_decides_nothing() -> None:
    verdict, words = found(ZONES, Evidence({"zones": [swap()], "zones, base": [swap("fail", lost_up=40)]}))
    assert (verdict, words.partition("; ")[2]) == ("pass", "the base: lost 40 of 6000 (40 lost_up)")
    verdict, words = found(QUICK, Evidence(rounds_us=[turns(zones=1.05, zones_base=1.04)]))
    assert (verdict, words.partition("; ")[2]) == ("pass", "the base: 1.040 times (1.040 - 1.040, n = 100)")


@pytest.mark.parametrize(
    ("early", "late", "expected", "words"),
    [
        (1.05, 1.06, "pass", "limit 1.12"),
        (1.20, 1.21, "fail", "limit 1.12: 0.080 too much at least"),
        (1.11, 1.13, "inconclusive", "limit 1.12: the interval holds the limit"),
    ],
)
def test_a_path_is_judged_by_its_whole_interval(early: float, late: float, expected: str, words: str) -> None:
    verdict, said = found(QUICK, Evidence(rounds_us=[turns(zones=early), turns(zones=late)]))
    assert (verdict, said.partition("n = 200), ")[2]) == (expected, words)


def test_the_head_is_paired_with_the_base() -> None:
    assert found(NO_SLOWER, Evidence(rounds_us=[turns(zones=1.5, zones_base=1.49)]))[0] == "pass"
    verdict, words = found(NO_SLOWER, Evidence(rounds_us=[turns(zones=1.10, zones_base=1.05)]))
    assert (verdict, words) == (
        "fail",
        "1.048 times (1.048 - 1.048, n = 100), limit 1.02: 0.028 too much at least",
    )


def test_a_base_that_cannot_run_proves_nothing_and_is_quoted() -> None:
    shown = Evidence(rounds_us=[turns(zones=1.05)], absent={"zones, base": "swapper: too old"})
    assert found(NO_SLOWER, shown) == ("inconclusive", "zones, base was not measured: swapper: too old")
    assert found(QUICK, shown)[0] == "pass"


def test_a_machine_that_cannot_tell_two_direct_paths_apart_gives_no_verdict() -> None:
    verdict, words = found(QUICK, Evidence(rounds_us=[turns(zones=1.5, direct_again=1.03)]))
    assert verdict == "inconclusive"
    assert "the machine was busy: a second direct path took 1.030 times" in words
    assert found(QUICK, Evidence(rounds_us=[turns(zones=1.5, direct_again=1.005)]))[0] == "fail"
    verdict, words = found(QUICK, Evidence(rounds_us=[turns(zones=1.05)], noise="others used 1.4 CPUs"))
    assert (verdict, words.partition("; ")[2]) == ("inconclusive", "others used 1.4 CPUs")


@pytest.mark.parametrize(("second", "expected"), [(1.3, "fail"), (1.05, "pass")])
def test_only_a_path_over_its_limit_is_measured_once_more(second: float, expected: str) -> None:
    asked: list[Limit] = []

    def again(suspects: list[Limit]) -> Evidence:
        asked.extend(suspects)
        return Evidence(rounds_us=[turns(zones=second)])

    shown = Evidence({"zones": [swap("fail", lost_up=1)]}, [turns(zones=1.2, zones_base=1.2)])
    confirmed = judge.confirmed(judge.judged([ZONES, QUICK, NO_SLOWER], shown), again)
    assert asked == [QUICK]
    assert [one.verdict for one in confirmed] == ["fail", expected, "pass"]
    assert "measured before: 1.200 times" in confirmed[1].found
    assert judge.verdict(confirmed) == "fail"


def test_a_failure_counts_more_than_what_proves_nothing() -> None:
    findings = [judge.Finding(ZONES, verdict, "") for verdict in ("pass", "inconclusive", "fail")]
    assert [judge.verdict(findings[:n]) for n in (1, 2, 3)] == ["pass", "inconclusive", "fail"]


def test_the_table_has_a_row_for_each_limit_and_a_command_for_each_that_was_not_kept() -> None:
    findings = [judge.Finding(ZONES, "pass", "lost 0"), judge.Finding(QUICK, "inconclusive", "a | b\nc")]
    text = table.markdown(findings, lambda limit: f"gate {limit.name}")
    assert "| zones lose nothing | pass | lost 0 |" in text
    assert "| zones are quick | inconclusive | a \\| b<br>c |" in text
    assert text.count("see it again") == 1
    assert "- zones are quick: a lookup; see it again: `gate zones are quick`" in text


@pytest.mark.parametrize(
    ("swap", "path", "headline"),
    [
        ("pass", "pass", "The budget is kept."),
        ("pass", "inconclusive", "Nothing that was proved breaks the budget. A busy machine proves little of latency"),
        ("inconclusive", "inconclusive", "**Nothing broke the budget, but what proves nothing may lose datagrams.**"),
        ("fail", "inconclusive", "**The budget is broken.**"),
    ],
)
def test_the_table_begins_with_the_verdict(swap: judge.Verdict, path: judge.Verdict, headline: str) -> None:
    findings = [judge.Finding(ZONES, swap, ""), judge.Finding(QUICK, path, "")]
    assert table.markdown(findings, lambda limit: limit.name).startswith(headline)


def test_a_path_that_carries_nothing_is_no_busy_machine() -> None:
    noisy, based = Evidence(rounds_us=[turns(zones=1.05)], noise="others"), Evidence(rounds_us=[turns(zones=1.05)])
    mute = Evidence(rounds_us=[turns()], absent={"zones": "swapper: broken on purpose"})
    findings = [judge.judged([limit], shown)[0] for limit, shown in ((QUICK, noisy), (NO_SLOWER, based), (QUICK, mute))]
    assert [one.verdict for one in findings] == ["inconclusive"] * 3
    assert [one.is_unproved_latency for one in findings] == [True, True, False]
    assert table.markdown(findings, lambda limit: limit.name).startswith("**Nothing broke the budget, but what proves")


def loaded(text: str, folder: Path) -> list[Limit]:
    file = folder / "budget.toml"
    file.write_text(text)
    known = Known({"zones": "zero", "flush": "flush", "still": "pinned"}, ("zones", "stateless"))
    return budget.load(file, known)


def test_the_budget_that_is_shipped_holds_every_dataplane_from_all_sides() -> None:
    shipped = budget.load(budget.SHIPPED, KNOWN)
    # From outside alone only what has no swap from all sides: those have the same streams among theirs.
    wanted = {name for name in KNOWN.techniques if f"{name}, all sides" not in KNOWN.techniques}
    assert {limit.swap for limit in shipped if limit.swap} == wanted
    assert all(limit.lost == 0 for limit in shipped if KNOWN.techniques.get(limit.swap) == "zero")


def test_each_kind_of_limit_is_read(tmp_path: Path) -> None:
    common = '[[limit]]\nname = "{}"\nreason = "b"\n'
    texts = [
        'swap = "zones"\nlost = 0\n',
        'swap = "flush"\nlost = "rate x service time"\n',
        'swap = "still"\nlost = "everything"\n',
        'path = "zones"\nratio = 2\n',
        'path = "zones"\nagainst = "base"\nratio = 1.02\n',
    ]
    found = loaded("".join(common.format(n) + text for n, text in enumerate(texts)), tmp_path)
    assert [(limit.lost, limit.against, limit.ratio) for limit in found] == [
        (0, "direct", 0),
        ("rate x service time", "direct", 0),
        ("everything", "direct", 0),
        (0, "direct", 2),
        (0, "base", 1.02),
    ]


LIMIT = "[[limit]]\nname = 'a'\nreason = 'b'\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has to hold [[limit]] tables"),
        ("[[limit", "not valid TOML"),
        ("limit = 3", "has to hold [[limit]] tables"),
        (f"version = 1\n{LIMIT}swap = 'zones'\nlost = 0", "and nothing else"),
        (LIMIT, "limit[0].swap: found it and path, or neither; allowed: one of the two"),
        (f"{LIMIT}swap = 'zones'\npath = 'zones'\nlost = 0", "found it and path, or neither"),
        (f"{LIMIT}swap = 'zones'\nlost = 0\nspeed = 3", "limit[0].speed: found an unknown key; allowed: name, reason"),
        (f"{LIMIT}swap = 'zones'\nlost = 0\nratio = 1.1", "limit[0].ratio: found an unknown key"),
        ("[[limit]]\nname = 'a'\nswap = 'zones'\nlost = 0", "limit[0].reason: found nothing; allowed: a text"),
        (f"{LIMIT}swap = 'zone'\nlost = 0", 'found "zone" (did you mean "zones"?); allowed: "zones", "flush", "still"'),
        (f"{LIMIT}swap = 'zones'", "limit[0].lost: found nothing; allowed: an integer of 0 or more"),
        (f"{LIMIT}swap = 'zones'\nlost = -1", "limit[0].lost: found -1"),
        (f"{LIMIT}swap = 'zones'\nlost = true", "limit[0].lost: found true"),
        (f"{LIMIT}swap = 'zones'\nlost = 'everything'", 'limit[0].lost: found "everything"; allowed: an integer'),
        (f"{LIMIT}swap = 'flush'\nlost = 'all'", 'or "rate x service time", which is the model of flush'),
        (f"{LIMIT}path = 'nginx'\nratio = 1.1", 'limit[0].path: found "nginx"; allowed: "zones", "stateless"'),
        (f"{LIMIT}path = 'zones'", "limit[0].ratio: found nothing; allowed: a ratio above 0"),
        (f"{LIMIT}path = 'zones'\nratio = 'fast'", 'limit[0].ratio: found "fast"'),
        (f"{LIMIT}path = 'zones'\nratio = 0", "limit[0].ratio: found 0; allowed: a ratio above 0"),
        (f"{LIMIT}path = 'zones'\nratio = 1\nagainst = 'main'", 'found "main"; allowed: "direct", "base"'),
        (f"{LIMIT}swap = 'zones'\nlost = 0\n" * 2, 'two limits are called "a"'),
    ],
)
def test_a_budget_that_cannot_be_used_says_why(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(budget.BudgetError) as caught:
        loaded(text, tmp_path)
    assert why in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "budget.toml"))


def test_all_mistakes_of_a_budget_are_listed(tmp_path: Path) -> None:
    with pytest.raises(budget.BudgetError) as caught:
        loaded(f"{LIMIT}swap = 'x'\nlost = 'y'\n[[limit]]\npath = 'z'", tmp_path)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "limit[0].swap",
        "limit[0].lost",
        "limit[1].name",
        "limit[1].reason",
        "limit[1].path",
        "limit[1].ratio",
    ]


def document(**changes: Any) -> dict[str, Any]:
    """Results of two rounds."""
    rtt = {route: {"turns_us": values, "histogram": {}} for route, values in turns(zones=1.05).items()}
    slower = {route: {"turns_us": values, "histogram": {}} for route, values in turns(zones=3).items()}
    found: dict[str, Any] = {
        "version": 3,
        "options": {"seed": 1, "quick": True, "rounds": 2, "rtt_s": 40, "parts": ["rtt", "swaps"]},
        "environment": {},
        "noise": {"busy": False, "why": ""},
        "missing": {"haproxy": "haproxy is not on this host"},
        "failed": {},
        "measured": {
            "rtt": {"one core, round 1": rtt, "two cores, round 1": slower, "one core, round 2": rtt},
            "swaps": {"zones, round 1": swap(), "zones, round 2": swap("fail", lost_up=1)},
        },
    }
    return found | changes


def kept(folder: Path, **changes: Any) -> Path:
    file = folder / "bench.json"
    file.write_text(json.dumps(document(**changes)))
    return file


def test_stored_results_are_judged_by_rounds(tmp_path: Path) -> None:
    shown = evidence.stored(kept(tmp_path))
    assert found(ZONES, shown) == ("fail", "lost 1 of 12000 in 2 swaps (1 lost_up), 1 too many")
    assert found(QUICK, shown) == ("pass", "1.050 times (1.050 - 1.050, n = 200), limit 1.12")


def test_stored_results_of_a_busy_machine_or_a_failed_round_prove_nothing(tmp_path: Path) -> None:
    busy = evidence.stored(kept(tmp_path, noise={"busy": True, "why": "others used 1.4 CPUs"}))
    assert found(QUICK, busy)[0] == "inconclusive"
    measured = {"swaps": {"zones, round 1": swap()}}
    failed = evidence.stored(kept(tmp_path, failed={"swaps/zones, round 2": "no space left"}, measured=measured))
    assert found(ZONES, failed) == ("inconclusive", "zones was not measured: no space left")


def test_unproved_latency_is_spared_where_that_is_asked_for_and_an_unproved_swap_never(tmp_path: Path) -> None:
    (tmp_path / "budget.toml").write_text(
        "[[limit]]\nname = 'swap'\nreason = 'a'\nswap = 'zones nftables'\nlost = 0\n"
        "[[limit]]\nname = 'path'\nreason = 'a'\npath = 'zones nftables'\nratio = 1.12\n"
    )
    swapped = {"zones nftables, round 1": {**swap(), "technique": "zones nftables"}}
    slow = {
        "one core, round 1": {"direct": {"turns_us": [1.0] * 9}, "zones nftables": {"turns_us": [1.1, 1.2, 1.1] * 3}}
    }
    kept(tmp_path, measured={"swaps": swapped, "rtt": slow})
    judge = [str(BENCH), "gate", "--json", "bench.json", "--budget", "budget.toml"]
    assert subprocess.run(judge, cwd=tmp_path, capture_output=True, check=False).returncode == 3
    spared = subprocess.run([*judge, "--spare-latency"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (spared.returncode, "inconclusive path: " in spared.stdout) == (0, True), spared.stdout
    kept(tmp_path, measured={"swaps": swapped})
    assert subprocess.run([*judge, "--spare-latency"], cwd=tmp_path, capture_output=True, check=False).returncode == 3
    kept(tmp_path, measured={"rtt": slow})
    assert subprocess.run([*judge, "--spare-latency"], cwd=tmp_path, capture_output=True, check=False).returncode == 3


@pytest.mark.parametrize(
    "measured",
    [
        None,
        {"swaps": [swap()]},
        {"swaps": {"zones, round 1": {}}},
        {"swaps": {"zones, round 1": {**swap(), "ledger": {}}}},
        {"swaps": {"zones, round 1": {**swap(), "verdict": "passed"}}},
        {"swaps": {"zones, round 1": {**swap(), "ledger": swap(lost_up=3)["ledger"] | {"lost_up": 0}}}},
        {"swaps": {"zones, round 1": {**swap(), "ledger": dict.fromkeys((*FATES, "sent"), 0)}}},
        {"rtt": {"one core, round 1": [1.0]}},
        {"rtt": {"one core, round 1": {"direct": {"turns_us": [1.0]}, "zones": {"turns_us": [1.0, 2.0]}}}},
    ],
)
def test_stored_results_of_another_shape_are_refused(tmp_path: Path, measured: Any) -> None:
    file = kept(tmp_path, measured=measured)
    with pytest.raises(results.ResultsError, match=r"bench\.json: is not a result of swapper-bench run"):
        evidence.stored(file)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--json", "bench.json"], "bench.json"),
        (["--json", "bench.json", "--base", "HEAD"], "neither --base nor --product"),
        (["--limit", "nothing like it"], "the budget has no limit called nothing like it; there are:\n  zones on nft"),
        (["--limit", "zones are no slower than the base"], "so it needs --base REV: zones are no slower than the base"),
        (["--budget", "none.toml"], "none.toml: cannot be read"),
        (["--budget", "based.toml"], "so it needs --base REV: against it alone"),
        (["--product", "."], "has no swapper/__main__.py to run"),
    ],
)
def test_wrong_usage_and_wrong_files_are_2_with_words(tmp_path: Path, words: list[str], why: str) -> None:
    (tmp_path / "bench.json").write_text('{"version": 3, "mea')
    (tmp_path / "based.toml").write_text(
        "[[limit]]\nname = 'against it alone'\nreason = 'a'\npath = 'zones nftables'\nagainst = 'base'\nratio = 1"
    )
    done = subprocess.run([BENCH, "gate", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, why in done.stderr) == (2, True), done.stderr
