"""What became of every deployment: one JSON receipt each, and the recorder that writes it while the story is told."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from swapper.errors import LockedError, StateError
from swapper.files import replace_file
from swapper.hooks import run_hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from swapper.model import PortSet, Service
    from swapper.recipe import Step

__all__ = ["Receipt", "Receipts", "Recorder"]

KEPT = 200


@dataclass(slots=True)
class Receipt:
    """One deployment or rollback. Times are Unix time, durations seconds; what did not happen is empty."""

    service: str
    kind: str  # deploy, rollback, recovery
    started_at: float
    release: str = ""
    digest: str = ""
    previous: str = ""  # the release that served before
    source: PortSet | None = None
    to: PortSet | None = None
    generation: int = 0
    steps: dict[str, float] = field(default_factory=dict)
    flows_moved: int | None = None
    health_attempts: int = 0
    took_s: float = 0.0
    result: str = ""  # done, returned, failed, interrupted, unfinished, finished, undone
    why: str = ""

    @property
    def ident(self) -> str:
        """Its name: when it began, and what of."""
        when = datetime.fromtimestamp(self.started_at, UTC).strftime("%Y%m%dT%H%M%S.%f")
        return f"{when}-{self.kind}-{self.release or 'none'}"


class Receipts:
    """The receipts of one service, in a folder of its own; the oldest go after two hundred."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, receipt: Receipt) -> None:
        """Keep a receipt. Raises StateError when it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self.folder / f"{receipt.ident}.json", json.dumps(asdict(receipt)).encode() + b"\n")
            for path in sorted(self.folder.glob("*.json"))[:-KEPT]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"{self.folder}: a receipt cannot be written: {error.strerror}") from error

    def read(self, *, last: int | None = None) -> list[dict[str, Any]]:
        """The receipts, newest first; those that cannot be read are left out."""
        found = []
        for path in sorted(self.folder.glob("*.json"), reverse=True)[:last]:
            try:
                found.append(json.loads(path.read_bytes()))
            except (OSError, ValueError):
                continue
        return found

    def previous(self, current: str) -> str:
        """The release that served before `current` did; "" when no receipt says so."""
        for receipt in self.read():
            before = str(receipt.get("previous") or "")
            served = receipt.get("result") in ("done", "finished") and receipt.get("release") == current
            if served and before not in ("", current):  # the same release twice in a row is no step back
                return before
        return ""


class Recorder:
    """Tells one deployment: times its steps, runs the hooks around them, and keeps the receipt whatever happens."""

    def __init__(self, service: Service, receipt: Receipt, receipts: Receipts, *, say: Callable[[str], None]) -> None:
        self.service, self.receipt, self.receipts, self.say = service, receipt, receipts, say
        self._began_s = time.monotonic()

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """One step, between its hooks. Raises HookError when the hook before it fails; one after it is only told."""
        if command := self.service.recipe.hook("before", step):
            run_hook(command, self._told("before", step))
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.receipt.steps[step] = round(time.monotonic() - began_s, 3)
        if command := self.service.recipe.hook("after", step):
            try:
                run_hook(command, self._told("after", step))
            except Exception as error:  # noqa: BLE001 - the step is done: nothing may undo it
                self.say(f"{self.service.name}: {error}")

    @contextmanager
    def told(self) -> Iterator[None]:
        """The whole deployment; its receipt is kept on the way out."""
        try:
            yield
        except LockedError:  # nothing began: whoever tries again and again must not push out what did
            raise
        except Exception as error:
            self._keep("failed", str(error) or type(error).__name__)
            raise
        except BaseException:
            self._keep("interrupted", "ended by a signal; the next command finishes or undoes what was under way")
            raise
        else:
            self._keep("done", "")

    def _keep(self, result: str, why: str) -> None:
        receipt = self.receipt
        receipt.result, receipt.why = receipt.result or result, receipt.why or why
        receipt.took_s = round(time.monotonic() - self._began_s, 3)
        try:
            self.receipts.write(receipt)
        except StateError as error:  # a full disk: what the deployment did stands all the same
            self.say(f"{self.service.name}: {error}")

    def _told(self, when: str, step: Step) -> dict[str, str]:
        receipt = self.receipt
        return {
            "SWAPPER_SERVICE": self.service.name,
            "SWAPPER_HOOK": f"{when}_{step}",
            "SWAPPER_RELEASE": receipt.release,
            "SWAPPER_PREVIOUS": receipt.previous,
            "SWAPPER_FROM": str(receipt.source or ""),
            "SWAPPER_TO": str(receipt.to or ""),
        }
