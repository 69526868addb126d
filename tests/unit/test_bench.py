"""The bench's judgement and its report: from results to verdicts, pages and tables."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench import gate
from bench.cli import BUDGET
from bench.report import LOST, markdown, page
from bench.swaps import TECHNIQUES

FATES = ("sent", "answered_blue", "answered_green", *LOST, "not_sent", "duplicate")
TIMELINE = {"due_ms": [0.0, 1.0, 2.0], "rtt_ms": [20.0, 21.0, 0.0], "fate": [0, 1, 3], "swaps_ms": [[0.5, 1.5]]}


def swap(technique: str, *, verdict: str = "pass", **fates: int) -> dict[str, Any]:
    ledger = dict.fromkeys(FATES, 0) | {"sent": 6000} | fates
    why = f"because {technique} <did>"
    common = {"proxy": "", "verdict": verdict, "why": why, "ledger": ledger, "blackout_ms": 0.0, "timeline": TIMELINE}
    return {"technique": technique, **common}


def path(name: str, ratio: float, low: float, high: float) -> dict[str, Any]:
    return {"name": name, "turns": 500, "p50_us": 30.0, "adds_us": 1.0, "ratio": ratio, "low": low, "high": high}


def document(**changes: Any) -> dict[str, Any]:
    paths = [
        path("direct", 1, 1, 1),
        path("zones nftables", 1.05, 1.04, 1.06),
        path("stateless nftables", 1.02, 1.01, 1.03),
    ]
    found: dict[str, Any] = {
        "version": 2,
        "seed": 1,
        "environment": {"kernel": "6.18", "cpu": "a <cpu>", "cpus": 2, "load_1min": 0.1},
        "noisy": False,
        "missing": {"haproxy": "haproxy is not on this host; bring it with: apt-get install haproxy"},
        "rtts_us": {"two cores": {"direct": [30.0, 31.0], "zones nftables": [32.0, 33.0]}, "one core": {}},
        "comparisons": {"two cores": paths, "one core": []},
        "swaps": [swap(name) for name, _, proxy in TECHNIQUES if proxy is None],
    }
    return found | changes


def limits(text: str, folder: Path) -> list[gate.Limit]:
    file = folder / "budget.toml"
    file.write_text(text)
    return gate.load(file)


def test_the_budget_that_is_shipped_is_valid_and_kept_by_good_results() -> None:
    shipped = gate.load(BUDGET)
    assert all(limit.reason for limit in shipped)
    findings = gate.judged(shipped, document())
    assert {finding.verdict for finding in findings} == {"pass"}, findings
    assert gate.verdict(findings) == "pass"


def test_one_lost_datagram_breaks_it_and_is_named() -> None:
    swaps = [swap("zones nftables", lost_down=1), *(swap(n) for n, _, _ in TECHNIQUES if n != "zones nftables")]
    findings = gate.judged(gate.load(BUDGET), document(swaps=swaps))
    (broken,) = [finding for finding in findings if finding.verdict == "fail"]
    assert broken.found == "lost 1 of 6000 (1 lost_down), 1 too many"
    assert broken.reproduce == "swapper-bench run --only swaps"
    assert gate.verdict(findings) == "fail"


@pytest.mark.parametrize(
    ("ratio", "low", "high", "noisy", "expected"),
    [
        (1.05, 1.04, 1.06, False, "pass"),
        (1.2, 1.13, 1.3, False, "fail"),
        (1.2, 1.13, 1.3, True, "inconclusive"),
        (1.13, 1.11, 1.15, False, "inconclusive"),
        (1.11, 1.10, 1.13, False, "inconclusive"),
    ],
)
def test_a_path_is_judged_by_its_whole_interval(
    tmp_path: Path, ratio: float, low: float, high: float, noisy: bool, expected: str
) -> None:
    (limit,) = limits('[[limit]]\nname = "a"\nreason = "b"\npath = "zones nftables"\nratio = 1.12', tmp_path)
    comparisons = {"two cores": [path("zones nftables", ratio, low, high)], "one core": []}
    (finding,) = gate.judged([limit], document(comparisons=comparisons, noisy=noisy))
    assert finding.verdict == expected, finding.found


def test_what_was_not_measured_proves_nothing() -> None:
    empty: dict[str, list[Any]] = {"two cores": [], "one core": []}
    findings = gate.judged(gate.load(BUDGET), document(swaps=[], comparisons=empty))
    assert gate.verdict(findings) == "inconclusive"
    assert all("was not measured" in finding.found for finding in findings)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no"),
        ("[[limit", "not valid TOML"),
        ("[[limit]]\nname = 'a'\nreason = 'b'", "names neither a swap nor a path"),
        ("[[limit]]\nname = 'a'\nreason = 'b'\nswap = 'x'\nlost = 0\nspeed = 3", "unknown key speed"),
        ("[[limit]]\nname = 'a'\nswap = 'x'\nlost = 0", "reason is missing"),
        ("[[limit]]\nname = 'a'\nreason = 'b'\nswap = 'x'\nlost = -1", "lost has to be an integer"),
        ("[[limit]]\nname = 'a'\nreason = 'b'\npath = 'x'\nratio = 'fast'", "ratio has to be a ratio"),
    ],
)
def test_a_budget_that_cannot_be_used_says_why(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(gate.BudgetError, match=why):
        limits(text, tmp_path)


class Tags(HTMLParser):
    """What a page holds."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_shows_every_technique_and_fetches_nothing() -> None:
    text = page(document())
    tags = Tags()
    tags.feed(text)
    assert not {tag for tag, _ in tags.found} & {"script", "img", "link", "iframe"}
    assert "http" not in text
    assert len(text) < 3_000_000
    drawings = [attributes for tag, attributes in tags.found if tag == "svg"]
    assert len(drawings) == len(document()["swaps"])
    assert "0 (below 5.0e-04 at 95 %)" in text
    assert "a &lt;cpu&gt;" in text
    assert "haproxy</b> is missing" in text
    assert text.count("v12") == len(drawings)  # the one lost datagram of each timeline


def test_the_table_for_a_pull_request_says_the_same() -> None:
    text = markdown(document(swaps=[swap("zones nftables"), swap("nginx, reload", lost_down=8)], noisy=True))
    assert "| nginx, reload | 8 | 0.0 |" in text
    assert "| zones nftables | 1.050 | 1.040 - 1.060 (n = 500) |" in text
    assert "The machine was busy" in text
    assert re.search(r"^Without haproxy: ", text, re.MULTILINE)
