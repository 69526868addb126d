"""The story of a bench run: steps of all parts -> measured one by one, each kept at once -> the document of results."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from bench import journal as journals
from bench import results
from bench.document import assembled, values
from bench.journal import Journal
from bench.processors import adopt_orphans, at_rest, between, reading
from bench.progress import Estimate, shown
from bench.step import Plan
from swapper.lock import file_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from bench.proxies import Proxy
    from bench.step import Step

__all__ = ["PARTS", "Wanted", "all_steps", "measure"]

# In the order in which they are measured; a module has `steps(plan)`. Imported late: the names alone cost nothing.
PARTS: Final = {
    "rtt": "bench.parts.paths",
    "swaps": "bench.parts.swaps",
    "capacity": "bench.parts.capacity",
    "cost": "bench.parts.cost",
    "sweeps": "bench.parts.sweeps",
}
SHOWN: Final = 3  # differences to an interrupted run


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks of a run."""

    parts: tuple[str, ...] = tuple(PARTS)
    seed: int = 1
    quick: bool = False
    rounds: int = 10
    rtt_s: float = 200.0

    @classmethod
    def quickly(cls, parts: tuple[str, ...] = tuple(PARTS), *, seed: int = 1) -> Wanted:
        """Once each, in under three minutes."""
        return cls(parts, seed=seed, quick=True, rounds=1, rtt_s=40.0)

    def plan(self, proxies: tuple[Proxy, ...], lacking: Iterable[str] = ()) -> Plan:
        """What the steps of the parts follow from."""
        return Plan(self.seed, self.quick, self.rounds, self.rtt_s, proxies, frozenset(lacking))


def measure(wanted: Wanted, path: Path, *, fresh: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure, and put the document under `path`; go on where an interrupted run of the same kind stopped.

    A proxy that fails is named in the document, and the rest goes on. Needs root and the main thread.

    Raises ResultsError where something cannot be written (what was measured stays), LockedError while another run is at
    work on `path`.
    """
    with _held(path):
        adopt_orphans()
        plan, header = _prepared(wanted)
        steps = all_steps(wanted, plan)
        with _journal(path, header, fresh=fresh, say=say) as journal:
            _carry_out(steps, journal)
            document = assembled(journal.header, journal.entries)
            results.write(path, document)
            journal.remove()
    return document


def all_steps(wanted: Wanted, plan: Plan) -> list[Step]:
    """The steps of all parts that are wanted, in the order in which they are measured."""
    return [
        step for part, module in PARTS.items() if part in wanted.parts for step in import_module(module).steps(plan)
    ]


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """One run at a time for one results file."""
    lock = path.with_name(f".{path.name}.lock")
    with file_lock(lock, wait_s=0):
        try:
            yield
        finally:
            lock.unlink()


def _prepared(wanted: Wanted) -> tuple[Plan, dict[str, Any]]:
    """What the run has to work with, and what says whether another run is of the same kind."""
    from bench.environment import described
    from bench.parts.paths import DATAPLANES, answering
    from bench.proxies import usable

    proxies, missing = usable()
    # A swap says for itself which dataplane is not on this host; the other parts take all of theirs together.
    asked = DATAPLANES if wanted.parts != ("swaps",) else ()
    _, lacking = answering(route for route in asked if route.dataplane)
    options = asdict(wanted) | {"parts": list(wanted.parts)}
    return wanted.plan(proxies, lacking), {
        "version": results.VERSION,
        "options": options,
        "environment": described(),
        "missing": {**missing, **lacking},
    }


def _journal(path: Path, header: dict[str, Any], *, fresh: bool, say: Callable[[str], None]) -> Journal:
    """The journal of an interrupted run of the same kind, or a new one; says which."""
    beside = path.with_name(f"{path.name}.journal")
    kept = None if fresh else journals.read(beside)
    if kept is None:
        return Journal.begun(beside, header)
    if differs := journals.differences(journals.kind(kept.header), journals.kind(header)):
        more = f", and {len(differs) - SHOWN} more" if len(differs) > SHOWN else ""
        say(f"starts anew, the interrupted run was of another kind: {'; '.join(differs[:SHOWN])}{more}")
        return Journal.begun(beside, header)
    say(f"goes on where it was interrupted, with {len(values(kept.entries))} steps measured; --fresh starts anew")
    return Journal.resumed(beside, kept)


def _carry_out(steps: list[Step], journal: Journal) -> None:
    """Measure what is not yet in the journal, a step that failed included."""
    done = values(journal.entries)
    rest = [(number, step) for number, step in enumerate(steps, 1) if (step.part, step.name) not in done]
    left = Estimate(sum(step.about_s for _, step in rest))
    journal.add({"at_rest": asdict(at_rest())})
    with shown(len(steps)) as progress:
        for number, step in rest:
            progress.begin(number, step, left)
            entry = _measured(step)
            journal.add(entry)
            left.learn(step.about_s, entry["usage"]["seconds"])
            if "failed" in entry:
                progress.note(f"{step.part}: {step.name} failed: {entry['failed']}")


def _measured(step: Step) -> dict[str, Any]:
    from bench.failures import FAILURES, why

    found: dict[str, Any]
    before = reading()
    try:
        found = {"value": step.measure()}
    except FAILURES as error:
        found = {"failed": why(error)}
    return {"part": step.part, "step": step.name, **found, "usage": asdict(between(before, reading()))}
