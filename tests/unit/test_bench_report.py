"""The page and the tables say what a run found, what it rests on, and what is missing, whatever parts there are."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest

from bench.report import markdown, page
from bench.report.axis import linear, logarithmic
from bench.report.hopping import KINDS
from bench.report.words import bound, brief, lost_of, span
from harness.ledger import ANSWERED_BLUE, LOST_UP, NOT_SENT
from harness.timeline import Timeline
from tests.bench_document import BROKEN, LOSSES, RATIOS, ROUNDS, document, swap

FULL = document()
PARTS = tuple(FULL["measured"])
MOST_BYTES = 3_000_000


class Page(HTMLParser):
    """What a page holds: its tags, and its text as people read it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self._said.append(data)

    @property
    def text(self) -> str:
        return " ".join(self._said)

    def named(self, name: str) -> bool:
        """Whether a section is there."""
        return any(attributes.get("id") == name for _, attributes in self.tags)


def shown(**changes: Any) -> Page:
    return Page(page(FULL | changes))


@cache
def full() -> Page:
    return shown()


@cache
def table() -> str:
    return markdown(FULL)


def only(part: str) -> dict[str, Any]:
    return {part: FULL["measured"][part]}


def swaps(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"swaps": {f"{run['technique']}, round {number}": run for number, run in enumerate(runs, 1)}}


def test_a_full_page_is_one_small_file_that_fetches_nothing() -> None:
    text = page(FULL)
    assert len(text.encode()) < MOST_BYTES
    assert not {tag for tag, _ in Page(text).tags} & {"script", "img", "link", "iframe", "object"}
    assert not re.search(r"https?:|@import|url\(", text)


def test_every_technique_and_every_path_is_on_the_page_and_in_the_table() -> None:
    said, rows = full().text, table()
    for name in (*LOSSES, *BROKEN, *RATIOS):
        assert name in said
        assert name.replace("&", "&amp;").replace("<", "&lt;") in rows
    for kind in KINDS:
        assert kind.title in said


def test_every_picture_says_in_words_what_it_shows() -> None:
    tags = [tag for tag, _ in full().tags]
    pictures = [place for place, (tag, attributes) in enumerate(full().tags) if attributes.get("role") == "img"]
    assert len(pictures) > 100
    assert {tags[place + 1] for place in pictures} == {"title"}


def test_zero_losses_carry_their_bound() -> None:
    rows = table()
    assert f"| zones nftables | {ROUNDS} | 0 of 18,000 (below 1 in 6,000) | 0 |" in rows
    assert f"| classic, flush | {ROUNDS} | 120 of 18,000 | 20 |" in rows
    assert "0 of 18,000 (below 1 in 6,000)" in full().text


def test_round_trips_carry_their_interval_and_their_sample() -> None:
    (row,) = [line for line in table().splitlines() if line.startswith("| envoy |")]
    ratio, low, high, turns = re.findall(r"[\d.]+", row)[:4]
    assert float(low) <= float(ratio) <= float(high)
    assert (int(turns), round(float(ratio), 1)) == (250 * ROUNDS, round(RATIOS["envoy"], 1))
    assert "(n = 3) | 61.3 | 104,000 (n = 2) |" in row


def test_connections_of_tcp_are_counted_apart_from_datagrams() -> None:
    assert "| docker-proxy, TCP, restart | 1 | connections: 48 of 96 | – |" in table()
    assert "| zones nftables, TCP | 1 | connections: 0 of 96 (below 1 in 32) | – |" in table()
    assert "0 of 96 (below 1 in 32)" in full().text
    assert f"5 of {len(LOSSES)} techniques lost nothing" in full().text


def test_a_connection_that_was_refused_is_broken_and_unanswered_and_counts_once() -> None:
    refused = swap("socat, TCP", tcp={"opened": 12, "broken": 9, "unanswered": 8, "moved": 1, "on_old_set": 0})
    assert "| socat, TCP | 1 | connections: 10 of 12 | – |" in markdown(FULL | {"measured": swaps(refused)})


def test_a_proxy_for_tcp_that_proves_nothing_lost_no_connections() -> None:
    run = swap("haproxy, TCP", tcp={}, ledger={}, blackout_ms=None, verdict="inconclusive", why="it did not start")
    found = shown(measured=swaps(run)).text
    assert "a swap proves nothing: it did not start" in found
    assert "lost nothing" not in found
    assert "| haproxy, TCP | 0 | connections: – | – |" in markdown(FULL | {"measured": swaps(run)})


@pytest.mark.parametrize("part", PARTS)
def test_a_run_of_one_part_shows_that_part_alone(part: str) -> None:
    sections = {"rtt": "hop", "swaps": "swap", "capacity": "host", "cost": "host", "sweeps": "growth"}
    found = shown(measured=only(part))
    assert {name for name in sections.values() if found.named(name)} == {sections[part]}
    assert found.named("about")
    assert "Linux 6.18.44" in markdown(FULL | {"measured": only(part)})


def test_a_run_that_measured_nothing_says_what_failed() -> None:
    found = shown(measured={}, failed={"swaps/zones nftables, round 1": "no nft here"})
    assert "Failed: swaps/zones nftables, round 1: no nft here" in found.text
    assert not any(attributes.get("role") == "img" for _, attributes in found.tags)


def test_what_is_missing_is_named_with_its_reason() -> None:
    for text in (full().text, table()):
        assert "Without haproxy: haproxy is not on this host; bring it with: apt-get install haproxy" in text
        assert "Failed: capacity/envoy: envoy did not start" in text
    assert "[critical] bind: address in use" in full().text


def test_a_busy_machine_gives_no_verdict_on_latency() -> None:
    noise = FULL["noise"] | {"busy": True, "why": "others used 0.90 processors"}
    noisy = shown(noise=noise).text
    for text in (noisy, markdown(FULL | {"noise": noise})):
        assert "No verdict on latency: others used 0.90 processors" in text
    assert "times the direct one" not in noisy
    assert "times the direct one" in full().text


def test_a_swap_that_proves_nothing_is_named_and_not_counted() -> None:
    nothing = swap("zones nftables", verdict="inconclusive", why="the swap moved <nothing>")
    measured = swaps(swap("zones nftables"), nothing)
    assert "| zones nftables | 1 | 0 of 6,000 (below 1 in 2,000) | 0 |" in markdown(FULL | {"measured": measured})
    assert "a swap proves nothing: the swap moved <nothing>" in shown(measured=measured).text


def test_a_technique_of_which_nothing_was_sent_loses_nothing_and_proves_nothing() -> None:
    silent = swap("zones nftables", ledger={}, blackout_ms=None, verdict="inconclusive", why="no ledger")
    assert "| zones nftables | 0 | – | – |" in markdown(FULL | {"measured": swaps(silent)})
    found = shown(measured=swaps(silent))
    assert "a swap proves nothing: no ledger" in found.text
    assert "lost nothing" not in found.text


def test_a_place_that_a_sweep_could_not_measure_says_why() -> None:
    assert "Not measured: zones iptables-nft at 10k mapped ports (too many ports)." in full().text


def test_a_timeline_draws_every_loss_and_what_covers_the_same_place_once() -> None:
    answered, lost = 500, 40
    timeline = Timeline(
        [0.0] * answered + [1.0] * lost + [2.0],
        [20.0] * answered + [0.0] * (lost + 1),
        [ANSWERED_BLUE] * answered + [LOST_UP] * lost + [NOT_SENT],
        [(0.5, 0.6)],
    )
    drawn = timeline.figure("a & b", "c")
    assert (drawn.count("h0"), drawn.count("v12")) == (1, lost)
    assert "500 answered by blue, 0 by green, 40 not answered properly" in drawn


def test_a_slow_answer_is_drawn_however_many_quick_ones_there_are() -> None:
    slow = Timeline([*map(float, range(5000))], [20.0] * 2500 + [24.0] + [20.0] * 2499, [ANSWERED_BLUE] * 5000, [])
    quick = Timeline([*map(float, range(5000))], [20.0] * 5000, [ANSWERED_BLUE] * 5000, [])
    assert slow.figure("a", "").count("h0") == quick.figure("a", "").count("h0") + 1


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (linear([1.0, 1.437]), (1.0, 1.2, 1.4, 1.6)),
        (linear([0.0, 400_000.0]), (0.0, 100_000.0, 200_000.0, 300_000.0, 400_000.0)),
        (linear([1.0]), (1.0, 1.1)),
        (logarithmic([55.0, 480.0]), (50.0, 100.0, 200.0, 500.0)),
        (logarithmic([0.07, 1168.0]), (0.1, 1.0, 10.0, 100.0, 1000.0)),
        (logarithmic([0.0, 40.0, 3.0], with_zero=True), (0.0, 2.0, 5.0, 10.0, 20.0, 50.0)),
        (logarithmic([0.0], with_zero=True), (0.0, 1.0, 2.0)),
    ],
)
def test_an_axis_holds_its_values_between_round_numbers(axis: Any, ticks: tuple[float, ...]) -> None:
    assert axis.ticks == pytest.approx(ticks)
    places = [axis.at(tick) for tick in ticks]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)


def test_zero_has_a_place_of_its_own_on_a_logarithmic_axis() -> None:
    axis = logarithmic([0.0, 1.0, 4000.0], with_zero=True)
    assert axis.at(0) == 0 < axis.at(1) < axis.at(2) < axis.at(4000) < 1


def test_numbers_are_written_with_what_they_rest_on() -> None:
    assert (bound(60_000), bound(2)) == ("below 1 in 20,000", "too few to tell")
    assert (lost_of(0, 0), lost_of(3, 10)) == ("–", "3 of 10")
    assert (span([20.0, 20.0]), span([10.0, 20.0, 40.0]), span([])) == ("20", "20 (10 – 40)", "–")
    assert [brief(value) for value in (0.1, 1, 8192, 50_000, 2_000_000)] == ["0.1", "1", "8,192", "50k", "2M"]
