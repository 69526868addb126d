"""When a backend counts as ready, when it is given up, and what is told meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TYPE_CHECKING

import pytest

from swapper.errors import UnhealthyError
from swapper.health import Bake, Boot, Checks, Results, Verdict
from swapper.recipe import Health

if TYPE_CHECKING:
    from collections.abc import Iterable

BAD = "no answer"


@dataclass
class World:
    """A backend whose probes and deaths are a script, on a clock that only sleep and probes move."""

    answers: Iterable[str]
    dies_s: float = float("inf")
    probe_takes_s: float = 0.0
    now_s: float = 100.0
    asked_s: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._answers = iter(self.answers)

    def probe(self) -> str:
        assert len(self.asked_s) < 10_000
        self.asked_s.append(self.now_s - 100.0)
        self.now_s += self.probe_takes_s
        return next(self._answers)

    def death(self) -> str:
        return "exited with code 1" if self.now_s - 100.0 >= self.dies_s else ""

    def sleep(self, for_s: float) -> None:
        self.now_s += for_s

    def checks(self, health: Health) -> Checks:
        return Checks(
            probe=self.probe,
            death=self.death,
            health=health,
            clock_s=lambda: self.now_s,
            sleep=self.sleep,
            say=self.told.append,
        )

    def waits(self, health: Health) -> int:
        return self.checks(health).wait_healthy()

    def watches(self, for_s: float, *, interval_s: float = 1.0) -> str:
        return self.checks(Health(interval_s=interval_s)).watch(for_s)


def results(*reasons: str, death: str = "") -> Results:
    found = Results()
    for reason in reasons:
        found = found.then(reason, death)
    return found


@pytest.mark.parametrize(
    ("seen", "now_s", "verdict"),
    [
        (results(""), 0, Verdict.WAIT),
        (results("", ""), 0, Verdict.HEALTHY),
        (results("", BAD, ""), 0, Verdict.WAIT),
        (results("", ""), 11, Verdict.HEALTHY),
        (results(BAD), 9.9, Verdict.WAIT),
        (results(BAD), 10, Verdict.GIVE_UP),
        (results("", "", death="killed"), 0, Verdict.GIVE_UP),
    ],
)
def test_a_boot_needs_successes_in_a_row_before_its_end(seen: Results, now_s: float, verdict: Verdict) -> None:
    assert Boot(started_s=0, ends_s=10, successes=2).verdict(seen, now_s=now_s) is verdict


@pytest.mark.parametrize(
    ("seen", "now_s", "verdict"),
    [
        (results(""), 9.9, Verdict.WAIT),
        (results(""), 10, Verdict.HEALTHY),
        (results(BAD, BAD), 10, Verdict.WAIT),
        (results(BAD, BAD, ""), 10, Verdict.HEALTHY),
        (results(BAD, BAD, BAD), 1, Verdict.GIVE_UP),
        (results(BAD, "", BAD, "", BAD), 1, Verdict.WAIT),
        (results("", death="killed"), 10, Verdict.GIVE_UP),
    ],
)
def test_a_bake_forgives_two_failures_but_does_not_end_on_one(seen: Results, now_s: float, verdict: Verdict) -> None:
    assert Bake(started_s=0, ends_s=10).verdict(seen, now_s=now_s) is verdict


def test_a_healthy_backend_costs_one_probe_and_no_time() -> None:
    world = World([""])
    assert world.waits(Health()) == 1
    assert (world.asked_s, world.told) == ([0], [])


def test_probes_keep_their_interval_however_long_one_takes() -> None:
    world = World([BAD, BAD, BAD, ""], probe_takes_s=0.25)
    assert world.waits(Health(interval_s=1)) == 4
    assert world.asked_s == pytest.approx([0, 1, 2, 3])
    slow = World([BAD, BAD, ""], probe_takes_s=3)
    slow.waits(Health(interval_s=1))
    assert slow.asked_s == pytest.approx([0, 3, 6])


def test_a_long_boot_is_told_every_second_and_later_every_five() -> None:
    world = World(chain(repeat(BAD, 60), [""]))
    assert world.waits(Health(interval_s=0.5, start_period_s=20, deadline_s=40)) == 61
    assert [story.partition(":")[0] for story in world.told] == [
        f"not ready after {s} s" for s in (*range(1, 10), 14, 19, 24, 29)
    ]
    assert world.told[3] == "not ready after 4 s: no answer"


def test_a_backend_that_never_answers_is_given_up_at_its_deadline_after_a_last_probe() -> None:
    world = World(repeat(BAD))
    with pytest.raises(UnhealthyError, match="not ready after 5 s: no answer"):
        world.waits(Health(interval_s=2, start_period_s=2, deadline_s=3))
    assert world.asked_s == pytest.approx([0, 2, 4, 5])


def test_a_backend_that_flaps_is_not_healthy() -> None:
    with pytest.raises(UnhealthyError, match="not ready after 4 s: 1 of 2 probes in a row succeeded"):
        World(["", BAD, "", BAD, ""]).waits(Health(successes=2, interval_s=1, deadline_s=4))


def test_a_backend_that_died_is_given_up_at_once_even_between_two_probes() -> None:
    world = World(repeat(BAD), dies_s=3)
    with pytest.raises(UnhealthyError, match="not ready after 3 s: exited with code 1"):
        world.waits(Health(interval_s=60))


def test_an_answer_from_somebody_else_does_not_hide_that_the_backend_died() -> None:
    with pytest.raises(UnhealthyError, match="exited with code 1"):
        World([""], dies_s=0).waits(Health())


def test_a_bake_ends_well_after_its_time() -> None:
    world = World(repeat(""))
    assert world.watches(5) == ""
    assert world.asked_s == pytest.approx([0, 1, 2, 3, 4, 5])
    assert world.told == [f"healthy {s} s after the swap" for s in (1, 2, 3, 4)]


def test_a_bake_that_ends_on_a_failure_waits_for_the_next_probes() -> None:
    recovered = World(["", "", BAD, ""])
    assert recovered.watches(2) == ""
    assert recovered.asked_s == pytest.approx([0, 1, 2, 3])
    assert World(["", "", BAD, BAD, BAD]).watches(2) == BAD


def test_three_failures_in_a_row_or_a_death_end_a_bake() -> None:
    failing = World(["", BAD, BAD, "", BAD, BAD, BAD])
    assert failing.watches(60) == BAD
    assert "failing 2 s after the swap: no answer" in failing.told
    dying = World(repeat(""), dies_s=2)
    assert dying.watches(60, interval_s=30) == "exited with code 1"
    assert dying.asked_s == pytest.approx([0, 2], abs=0.5)
