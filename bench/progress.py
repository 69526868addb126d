"""How far a run is and about how long the rest takes: lines, or a bar where a person looks at a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from bench.console import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.step import Step

__all__ = ["Estimate", "Progress", "shown"]


class Estimate:
    """What is left: what the steps say of themselves, corrected by how long those before took."""

    def __init__(self, about_s: float) -> None:
        self._rest_s, self._said_s, self._took_s = about_s, 0.0, 0.0

    def learn(self, about_s: float, took_s: float) -> None:
        """A step of about that long is over."""
        self._rest_s -= about_s
        self._said_s += about_s
        self._took_s += took_s

    def __str__(self) -> str:
        """In words."""
        left_s = self._rest_s * (self._took_s / self._said_s if self._said_s else 1.0)
        return f"about {left_s / 60:.0f} min left" if left_s >= 90 else f"about {left_s:.0f} s left"


class Progress(Protocol):
    """What a run tells the person who waits for it."""

    def begin(self, number: int, step: Step, left: Estimate) -> None:
        """The step with that number, from 1, begins."""

    def note(self, text: str) -> None:
        """Something to know beside it."""


class _Lines:
    def __init__(self, total: int) -> None:
        self.total = total

    def begin(self, number: int, step: Step, left: Estimate) -> None:
        say(f"[{number}/{self.total}] {step.part}: {step.name}; {left}")

    def note(self, text: str) -> None:
        say(text)


class _Bar:
    """Drawn between steps alone: a thread that draws meanwhile would be measured too."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self.bar = Bar(
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[left]}  {task.description}", markup=False),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self.task = self.bar.add_task("", total=total, left="")

    def begin(self, number: int, step: Step, left: Estimate) -> None:
        text = f"{step.part}: {step.name}"
        self.bar.update(self.task, completed=number - 1, description=text, left=str(left), refresh=True)

    def note(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)


@contextmanager
def shown(total: int) -> Iterator[Progress]:
    """The progress of a run of so many steps, on standard error."""
    if not sys.stderr.isatty():
        yield _Lines(total)
        return
    bar = _Bar(total)
    with bar.bar:
        yield bar
