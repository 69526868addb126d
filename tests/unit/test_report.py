"""The page shows what became of every datagram that was not answered properly."""

from __future__ import annotations

import re

import pytest

from harness.ledger import FATES
from harness.matrix import Outcome
from harness.report import page
from tests.unit.test_expect import fates, record, some


def marks(fate: str) -> int:
    made = record(some(fates(), 1, FATES.index(fate)))
    return page([Outcome(made.scenario, made)]).count("v12")


@pytest.mark.parametrize("fate", [name for name in FATES if not name.startswith("answered") and name != "not_sent"])
def test_one_datagram_that_was_not_answered_properly_is_marked(fate: str) -> None:
    assert marks(fate) == 1


@pytest.mark.parametrize("fate", ["answered_blue", "not_sent"])
def test_what_was_answered_or_never_sent_is_no_loss(fate: str) -> None:
    assert marks(fate) == 0


def test_a_row_says_what_was_sent_and_what_was_lost() -> None:
    made = record(some(fates(), 5, FATES.index("lost_down")))
    cells = re.findall(r'<th scope="row">([^<]*)|data-is="(?:sent|lost)">([^<]*)', page([Outcome(made.scenario, made)]))
    assert ["".join(cell) for cell in cells] == [made.scenario.name, "2,000", "5"]
