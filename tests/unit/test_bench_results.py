"""A file of results is whole and of this bench, or refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bench import results

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT: dict[str, Any] = {
    "options": {"seed": 1},
    "environment": {"kernel": "6.18"},
    "noise": {"busy": False, "why": ""},
    "missing": {},
    "failed": {},
    "measured": {"swaps": {}},
}
WHOLE = json.dumps({"version": 3, **DOCUMENT})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no whole document"),
        (WHOLE[:-9], "no whole document"),
        ("[]", "is not a result of"),
        ('{"version": "three"}', "is not a result of"),
        (WHOLE.replace("3", "2", 1), "version 2; this bench reads 3"),
        (WHOLE.replace('"measured"', '"rtts_us"'), "measured missing"),
        (WHOLE.replace('{"busy": false, "why": ""}', "false"), "noise missing or of another kind"),
    ],
)
def test_what_cannot_be_trusted_is_refused_by_name(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "bench.json"
    file.write_text(text)
    with pytest.raises(results.ResultsError, match=rf"bench\.json: .*{why}"):
        results.read(file)


def test_what_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(results.ResultsError, match="make it with: swapper-bench run"):
        results.read(tmp_path / "bench.json")


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "deep/bench.json"
    results.write(file, DOCUMENT)
    assert results.read(file) == {"version": 3, **DOCUMENT}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where a folder should be")
    with pytest.raises(results.ResultsError, match=r"results/bench\.json: cannot be written: File exists"):
        results.write(tmp_path / "results/bench.json", DOCUMENT)
