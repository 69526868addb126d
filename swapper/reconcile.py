"""What to do with a deployment that died, decided from its journal, the kernel and the backends. Pure."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from swapper.journal import Phase

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from swapper.journal import Entry
    from swapper.model import PortSet

__all__ = ["Action", "reconcile"]


class Action(Enum):
    """What finishes or undoes a deployment."""

    UNDO = "traffic never moved, or has moved back: stop the new backend"
    VERIFY = "traffic has moved: watch the new backend, then retire the old one"
    RETURN = "the new backend failed under traffic: move back, then stop it"
    RETIRE = "stop the old backend"


def reconcile(entry: Entry, kernel: PortSet | None, alive: AbstractSet[PortSet]) -> Action:
    """The action that an interrupted deployment needs.

    `kernel` is the set that traffic goes to, `alive` are those that have a running backend.
    Traffic is never moved to a set without one.
    """
    if entry.phase in (Phase.LAUNCHING, Phase.CHECKING) or kernel is not entry.to:
        # A retirement under way is finished even when somebody has moved traffic since: unless it would end who serves.
        return Action.RETIRE if entry.phase is Phase.RETIRING and kernel is not entry.source else Action.UNDO
    if entry.phase is Phase.RETIRING:
        return Action.RETIRE
    can_return = entry.source is not None and entry.source in alive
    if entry.to not in alive or entry.phase in (Phase.RETURNING, Phase.UNDOING):
        return Action.RETURN if can_return else Action.RETIRE
    return Action.VERIFY
