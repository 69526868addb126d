"""The bench's judgement and its report: from results to verdicts, pages and tables."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

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
