"""The journal of a deployment under way: which phase it is in, so that whoever comes after a crash can go on.

The table of phases is the whole of what may follow what; `swapper.reconcile` says what each means after a crash.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from swapper.errors import StateError
from swapper.files import replace_file, sync_folder
from swapper.model import PortSet

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SUCCESSORS", "Entry", "Journal", "Phase", "diagram"]

VERSION = 1


class Phase(StrEnum):
    """What a deployment is doing."""

    LAUNCHING = "launching"  # the new backend is being started on the idle set
    CHECKING = "checking"  # it runs, and is asked whether it is ready
    SWAPPING = "swapping"  # traffic is about to move, or has just moved
    VERIFYING = "verifying"  # traffic has moved, and the new backend is watched
    RETIRING = "retiring"  # the old backend is drained and stopped
    RETURNING = "returning"  # the new one failed under traffic, which is moving back
    UNDOING = "undoing"  # the new one does not serve, and is being stopped


# What may follow what, None being no deployment. What follows itself is taken up there after a crash.
SUCCESSORS: dict[Phase | None, tuple[Phase | None, ...]] = {
    None: (Phase.LAUNCHING,),
    Phase.LAUNCHING: (Phase.CHECKING, Phase.UNDOING),
    Phase.CHECKING: (Phase.SWAPPING, Phase.UNDOING),
    Phase.SWAPPING: (Phase.VERIFYING, Phase.UNDOING, Phase.RETURNING, Phase.RETIRING),
    Phase.VERIFYING: (Phase.VERIFYING, Phase.RETIRING, Phase.RETURNING, Phase.UNDOING),
    Phase.RETIRING: (Phase.RETIRING, Phase.UNDOING, None),
    Phase.RETURNING: (Phase.RETURNING, Phase.UNDOING, Phase.RETIRING),
    Phase.UNDOING: (Phase.UNDOING, Phase.RETURNING, Phase.RETIRING, None),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One deployment: which release goes to which set, and from where traffic comes (None: the first one)."""

    service: str
    tag: str
    to: PortSet
    source: PortSet | None
    phase: Phase
    started_at: float  # Unix time


class Journal:
    """The file `journal.json` in a service's folder; there is one only while a deployment is under way."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.json"

    def read(self) -> Entry | None:
        """The deployment under way, or what a dead one has left. Raises StateError for a file it cannot trust."""
        try:
            document = json.loads(self.path.read_bytes())
            if document.pop("version") != VERSION:
                raise ValueError("another version of Swapper wrote it")  # noqa: TRY301 - said once, below
            document["to"] = PortSet(document["to"])
            document["source"] = PortSet(document["source"]) if document["source"] else None
            return Entry(**{**document, "phase": Phase(document["phase"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise StateError(
                f"{self.path}: cannot be trusted ({error}); traffic is where `swapper status` says. Look which backend "
                f"runs on which set, stop the one that does not serve, then: rm {self.path}"
            ) from error

    def begin(self, entry: Entry) -> None:
        """Note that a deployment begins. Raises StateError when it cannot be noted."""
        self._follow(None, entry.phase)
        self._write(entry)

    def turn(self, phase: Phase) -> None:
        """Note the next phase. Raises ValueError where the table does not allow it."""
        before = self.read()
        self._follow(before.phase if before else None, phase)
        if before:
            self._write(replace(before, phase=phase))

    def end(self) -> None:
        """Note that the deployment is over, one way or the other. Raises ValueError as `turn` does."""
        before = self.read()
        self._follow(before.phase if before else None, None)
        self.drop()

    def drop(self) -> None:
        """Forget the deployment, in whatever phase: for a disk so full that the last one could not be noted."""
        self.path.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _follow(self, before: Phase | None, after: Phase | None) -> None:
        if after not in SUCCESSORS[before]:
            raise ValueError(f"a deployment cannot go from {before} to {after}")

    def _write(self, entry: Entry) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, json.dumps({"version": VERSION, **asdict(entry)}).encode() + b"\n")
        except OSError as error:
            raise StateError(f"{self.path}: cannot be written: {error.strerror}") from error


def diagram() -> str:
    """The table as text: a line for each phase and what may follow it."""
    return "".join(
        f"{phase or 'start':<10} -> {', '.join(str(after or 'end') for after in followers if after is not phase)}\n"
        for phase, followers in SUCCESSORS.items()
    )
