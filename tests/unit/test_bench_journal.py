"""The journal of a run: what was added stays, a torn line does not, and only the same run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bench.journal import Journal, differences, kind, read

if TYPE_CHECKING:
    from pathlib import Path

HEADER: dict[str, Any] = {"version": 3, "options": {"seed": 1, "parts": ["swaps"]}, "environment": {"kernel": "6.18"}}
FIRST, SECOND = ({"part": "swaps", "step": f"zones, round {number}", "value": number} for number in (1, 2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Journal.begun(tmp_path / "bench.json.journal", HEADER) as journal:
        journal.add(FIRST)
    return journal.path


def test_what_was_added_is_read_back(path: Path) -> None:
    kept = read(path)
    assert kept
    assert (kept.header, kept.entries) == (HEADER, [FIRST])


@pytest.mark.parametrize("torn", ['{"part": "swaps", "st', '{"part": "swaps"}', "\x00\x00\x00"])
def test_a_torn_last_line_is_dropped_and_written_over(path: Path, torn: str) -> None:
    with path.open("a") as file:
        file.write(torn)  # whole or not: without its end of line it was never said to be kept
    kept = read(path)
    assert kept
    with Journal.resumed(path, kept) as journal:
        journal.add(SECOND)
    again = read(path)
    assert again
    assert again.entries == [FIRST, SECOND]


@pytest.mark.parametrize("content", ["", '{"version": 3', "not a journal\n"])
def test_without_a_whole_header_there_is_nothing_to_go_on_with(path: Path, content: str) -> None:
    path.write_text(content)
    assert read(path) is None


def test_no_journal_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    assert read(tmp_path / "none") is None


def test_a_new_one_takes_the_place_of_the_old(path: Path) -> None:
    with Journal.begun(path, HEADER):
        pass
    kept = read(path)
    assert kept
    assert kept.entries == []


def test_a_run_of_another_kind_is_told_by_what_differs() -> None:
    other = {**HEADER, "options": {"seed": 2, "parts": ["swaps"]}, "environment": {"kernel": "6.19", "cpu": "new"}}
    assert differences(HEADER, HEADER) == []
    assert differences(HEADER, other) == [
        'environment cpu was null, is "new"',
        'environment kernel was "6.18", is "6.19"',
        "options seed was 1, is 2",
    ]


def test_a_run_goes_on_though_the_log_of_a_missing_proxy_and_conntracks_sysctls_are_new() -> None:
    def said(log: str, **sysctls: str) -> dict[str, Any]:
        return {**HEADER, "missing": {"nginx": log}, "environment": {"kernel": "6.18", "sysctls": sysctls}}

    then = said("2026/01/01 12:00:00 [emerg] 17#17: no such port", somaxconn="4096")
    now = said("2026/01/01 12:30:00 [emerg] 99#99: no such port", somaxconn="4096")
    now["environment"]["sysctls"]["net/netfilter/nf_conntrack_max"] = "65536"
    assert differences(kind(then), kind(now)) == []
    assert differences(kind(then), kind({**now, "missing": {}})) == ['missing was ["nginx"], is []']
    assert differences(kind(then), kind(said("", somaxconn="128"))) == ['sysctls somaxconn was "4096", is "128"']
