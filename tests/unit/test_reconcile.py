"""What a deployment that died needs, for every phase, every kernel and every set of backends."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from swapper.errors import StateError
from swapper.journal import SUCCESSORS, Entry, Journal, Phase, diagram
from swapper.model import PortSet
from swapper.reconcile import Action, reconcile

BLUE, GREEN = PortSet.BLUE, PortSet.GREEN
NEXT = {Action.UNDO: Phase.UNDOING, Action.VERIFY: Phase.VERIFYING, Action.RETURN: Phase.RETURNING}
CASES = [
    (phase, source, kernel, frozenset(alive))
    for phase in Phase
    for source in (BLUE, None)
    for kernel in (BLUE, GREEN, None)
    for alive in ([], [BLUE], [GREEN], [BLUE, GREEN])
]


def entry(phase: Phase, source: PortSet | None = BLUE) -> Entry:
    return Entry("game", "v2", GREEN, source, phase, 0.0)


@pytest.mark.parametrize(("phase", "source", "kernel", "alive"), CASES)
def test_no_action_ends_who_serves_or_moves_traffic_to_nobody(
    phase: Phase, source: PortSet | None, kernel: PortSet | None, alive: frozenset[PortSet]
) -> None:
    action = reconcile(entry(phase, source), kernel, alive)
    if action is Action.UNDO:
        early = phase in (Phase.LAUNCHING, Phase.CHECKING)
        assert kernel is not GREEN or early  # before the swap the new set can carry nothing
    if action is Action.RETIRE:
        assert kernel is not source or source is None
    if action is Action.RETURN:
        assert source in alive
    assert NEXT.get(action, Phase.RETIRING) in SUCCESSORS[phase]


def test_what_a_crash_means_in_each_phase() -> None:
    both = frozenset(PortSet)
    expected = {
        (Phase.LAUNCHING, BLUE): Action.UNDO,
        (Phase.CHECKING, BLUE): Action.UNDO,
        (Phase.SWAPPING, BLUE): Action.UNDO,
        (Phase.SWAPPING, GREEN): Action.VERIFY,
        (Phase.VERIFYING, GREEN): Action.VERIFY,
        (Phase.RETIRING, GREEN): Action.RETIRE,
        (Phase.RETURNING, GREEN): Action.RETURN,
        (Phase.RETURNING, BLUE): Action.UNDO,
        (Phase.UNDOING, BLUE): Action.UNDO,
    }
    assert {phase for phase, _ in expected} == set(Phase)
    assert {case: reconcile(entry(case[0]), case[1], both) for case in expected} == expected


def test_every_phase_leads_to_an_end() -> None:
    assert set(SUCCESSORS) == {None, *Phase}
    for phase in Phase:
        reached: set[Phase | None] = {phase}
        for _ in Phase:
            reached |= set(itertools.chain.from_iterable(SUCCESSORS[one] for one in reached if one))
        assert None in reached


def test_the_diagram_in_architecture_is_the_table() -> None:
    assert f"```\n{diagram()}```\n" in (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text()


def test_a_journal_refuses_what_the_table_does_not_allow(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(ValueError, match="from None to swapping"):
        journal.begin(entry(Phase.SWAPPING))
    journal.begin(entry(Phase.LAUNCHING))
    with pytest.raises(ValueError, match="from launching to swapping"):
        journal.turn(Phase.SWAPPING)
    journal.turn(Phase.CHECKING)
    assert journal.read() == entry(Phase.CHECKING)
    with pytest.raises(ValueError, match="from checking to None"):
        journal.end()
    journal.turn(Phase.UNDOING)
    journal.end()
    assert journal.read() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2}', b'{"version": 1, "to": "red"}', b"\xff"])
def test_a_journal_that_cannot_be_trusted_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal.json").write_bytes(content)
    with pytest.raises(StateError, match=r"cannot be trusted.*rm "):
        Journal(tmp_path).read()
    assert (tmp_path / "journal.json").read_bytes() == content
