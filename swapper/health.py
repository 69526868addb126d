"""Whether a backend is ready, and whether it stays so: when to go on probing, and when to stop.

Deciding takes results and the time as arguments; the loops are given their probes, their clock and their sleep.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from swapper.errors import UnhealthyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapper.probes import Probe
    from swapper.recipe import Health

__all__ = ["Bake", "Boot", "Checks", "Results", "Verdict"]

FAILURES = 3  # in a row: one lost datagram must not undo a swap
LOOK_S = 0.02  # a death is seen this soon, however far apart the probes are: until then its traffic is lost
TELL_S, LATER_TELL_S, LATER_S = 1, 5, 10


class Verdict(Enum):
    """What to do about a backend that is being probed."""

    HEALTHY = "healthy"
    WAIT = "wait"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class Results:
    """What the probes have said so far; `successes` and `failures` are counted in a row."""

    attempts: int = 0
    successes: int = 0
    failures: int = 0
    reason: str = ""  # why the last probe failed, or why the backend died
    died: bool = False

    def then(self, reason: str, death: str) -> Results:
        """These results and one more: `reason` as a probe says it, `death` the same of the backend itself."""
        successes, failures = (0, self.failures + 1) if reason else (self.successes + 1, 0)
        return Results(self.attempts + 1, successes, failures, death or reason, bool(death))


@dataclass(frozen=True, slots=True)
class Boot:
    """A backend launched at `started_s` that has to succeed `successes` times in a row by `ends_s`."""

    started_s: float
    ends_s: float
    successes: int

    def verdict(self, results: Results, *, now_s: float) -> Verdict:
        """HEALTHY after enough successes in a row, GIVE_UP when it died or the time is over, else WAIT."""
        if results.died:
            return Verdict.GIVE_UP
        if results.successes >= self.successes:
            return Verdict.HEALTHY
        return Verdict.GIVE_UP if now_s >= self.ends_s else Verdict.WAIT

    def story(self, results: Results, *, now_s: float) -> str:
        """How long it was waited for, and what is missing."""
        missing = results.reason or f"{results.successes} of {self.successes} probes in a row succeeded"
        return f"not ready after {now_s - self.started_s:.0f} s: {missing}"


@dataclass(frozen=True, slots=True)
class Bake:
    """A backend that carries traffic since `started_s` and has to stay healthy until `ends_s`."""

    started_s: float
    ends_s: float

    def verdict(self, results: Results, *, now_s: float) -> Verdict:
        """GIVE_UP when it died or failed three times in a row; HEALTHY when the time ends with a success, else WAIT."""
        if results.died or results.failures >= FAILURES:
            return Verdict.GIVE_UP
        return Verdict.HEALTHY if now_s >= self.ends_s and not results.failures else Verdict.WAIT

    def story(self, results: Results, *, now_s: float) -> str:
        """How long it was watched, and what is wrong."""
        watched = f"{now_s - self.started_s:.0f} s after the swap"
        return f"failing {watched}: {results.reason}" if results.reason else f"healthy {watched}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """How one backend is looked at, on whose time: `probe` asks it, `death` says how it ended, "" while it runs."""

    probe: Probe
    death: Probe
    health: Health
    clock_s: Callable[[], float]
    sleep: Callable[[float], None]
    say: Callable[[str], None]

    def wait_healthy(self) -> int:
        """Probe a new backend until it is healthy; the number of probes that took.

        Raises UnhealthyError when it died, or is not healthy `start_period_s` + `deadline_s` from now.
        """
        now_s = self.clock_s()
        boot = Boot(now_s, now_s + self.health.start_period_s + self.health.deadline_s, self.health.successes)
        verdict, results = self._judged(boot)
        if verdict is Verdict.GIVE_UP:
            raise UnhealthyError(boot.story(results, now_s=self.clock_s()))
        return results.attempts

    def watch(self, for_s: float) -> str:
        """Probe a backend that carries traffic for `for_s` seconds; "" if it stayed healthy, else why not."""
        now_s = self.clock_s()
        verdict, results = self._judged(Bake(now_s, now_s + for_s))
        return results.reason if verdict is Verdict.GIVE_UP else ""

    def _judged(self, judge: Boot | Bake) -> tuple[Verdict, Results]:
        """Probe at once and then every `interval_s`, until `judge` has decided."""
        started_s = told_s = self.clock_s()
        results = Results()
        while True:
            asked_s = self.clock_s()
            results = results.then(self.probe(), self.death())
            now_s = self.clock_s()
            if (verdict := judge.verdict(results, now_s=now_s)) is not Verdict.WAIT:
                return verdict, results
            if now_s - told_s >= (TELL_S if now_s - started_s < LATER_S else LATER_TELL_S):
                self.say(judge.story(results, now_s=now_s))
                told_s = now_s
            next_s = asked_s + self.health.interval_s
            if now_s < judge.ends_s:
                next_s = min(next_s, judge.ends_s)
            while (left_s := next_s - self.clock_s()) > 0 and not self.death():
                self.sleep(min(left_s, LOOK_S))
