"""What the webhook server has to know after a restart: deliveries it has seen, and releases that wait."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from swapper.errors import KernelRefusedError, LockedError, StateError, UnhealthyError
from swapper.files import replace_file
from swapper.logs import event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable
    from pathlib import Path

__all__ = ["Outcome", "Queue", "Running", "Seen"]

REMEMBERED = 10_000  # deliveries
RETRY_S = 5.0  # between two tries to deploy while another command holds the service's lock
_VERSION = 1
_RESULTS = {
    0: "done",
    UnhealthyError.exit_code: "unhealthy",
    KernelRefusedError.exit_code: "refused",
    LockedError.exit_code: "locked",
}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one deployment ended; `exit_code` is that of `swapper deploy`, None if it could not be started."""

    service: str
    tag: str
    exit_code: int | None
    duration_s: float

    @property
    def result(self) -> str:
        """`done`, `unhealthy`, `refused` (by the kernel), `locked` or `failed`."""
        return "failed" if self.exit_code is None else _RESULTS.get(self.exit_code, "failed")

    def document(self) -> dict[str, Any]:
        """The values and the result, for logs and `/status`."""
        return asdict(self) | {"duration_s": round(self.duration_s, 3), "result": self.result}


@dataclass(frozen=True, slots=True)
class Running:
    """A deployment under way."""

    tag: str
    since_s: float  # on the queue's clock


class Seen:
    """The last 10,000 deliveries that were acted upon: their ids, and the tags that they deployed."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier server kept. Raises StateError for a file that cannot be trusted."""
        self._path = path
        self._tags = _read(path)  # by id, the oldest first

    def __contains__(self, delivery: str) -> bool:
        """Whether that delivery is remembered."""
        return delivery in self._tags

    def add(self, delivery: str, tag: str) -> None:
        """Remember one more, and forget the oldest where they are too many."""
        self._tags[delivery] = tag
        if len(self._tags) > REMEMBERED:
            del self._tags[next(iter(self._tags))]
        _keep(self._path, self._tags)


class Queue:
    """At most one deployment of a service runs and at most one release waits for it: a newer one replaces that."""

    def __init__(
        self,
        path: Path,
        *,
        deploy: Callable[[str, str], Awaitable[int]],
        finished: Callable[[Outcome], None],
        clock_s: Callable[[], float],
        retry_s: float = RETRY_S,
    ) -> None:
        """Read what an earlier server left waiting; `deploy` is given service and tag and answers an exit code.

        Raises StateError for a file that cannot be trusted.
        """
        self._path = path
        self._deploy, self._finished, self._clock_s, self._retry_s = deploy, finished, clock_s, retry_s
        self._workers: dict[str, asyncio.Task[None]] = {}
        self.waiting = _read(path)  # tags, by service
        self.running: dict[str, Running] = {}
        self.last: dict[str, Outcome] = {}

    def start(self, services: Collection[str]) -> None:
        """Take up what waits for these services, drop what waits for any other."""
        for service, tag in list(self.waiting.items()):
            if service in services:
                self._wake(service)
            else:
                del self.waiting[service]
                event(_LOG, "dropped", level=logging.WARNING, service=service, tag=tag, why="not configured any more")
                _keep(self._path, self.waiting)

    def put(self, services: Iterable[str], tag: str) -> None:
        """Let each service be deployed with `tag`, once what runs there has ended."""
        for service in services:
            event(_LOG, "queued", service=service, tag=tag, replaces=self.waiting.get(service))
            self.waiting[service] = tag
            self._wake(service)
        _keep(self._path, self.waiting)

    async def stop(self) -> None:
        """Begin nothing more. What waits is in the file for the next server; what runs is left to end by itself."""
        left = {service: running.tag for service, running in self.running.items()}
        event(_LOG, "stopped", waiting=self.waiting, left_running=left)
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    def report(self) -> dict[str, Any]:
        """By service: the tag that waits, what runs and for how long, how the last one ended."""
        now_s = self._clock_s()
        return {
            "waiting": self.waiting,
            "running": {
                service: {"tag": running.tag, "for_s": round(now_s - running.since_s, 3)}
                for service, running in self.running.items()
            },
            "last": {service: outcome.document() for service, outcome in self.last.items()},
        }

    def _wake(self, service: str) -> None:
        if service not in self._workers:
            self._workers[service] = asyncio.create_task(self._work(service))

    async def _work(self, service: str) -> None:
        while service in self.waiting:
            outcome = await self._deploy_next(service)
            if outcome.result == "locked":
                self.waiting.setdefault(service, outcome.tag)
                _keep(self._path, self.waiting)
                await asyncio.sleep(self._retry_s)
        del self._workers[service]

    async def _deploy_next(self, service: str) -> Outcome:
        running = Running(self.waiting.pop(service), self._clock_s())
        _keep(self._path, self.waiting)
        self.running[service] = running
        event(_LOG, "deployment started", service=service, tag=running.tag)
        exit_code = await self._exit_code(service, running.tag)
        del self.running[service]
        outcome = Outcome(service, running.tag, exit_code, self._clock_s() - running.since_s)
        self.last[service] = outcome
        self._finished(outcome)
        level = logging.INFO if outcome.result == "done" else logging.ERROR
        event(_LOG, "deployment ended", level=level, **outcome.document())
        return outcome

    async def _exit_code(self, service: str, tag: str) -> int | None:
        try:
            return await self._deploy(service, tag)
        except OSError as error:
            event(_LOG, "deployment not started", level=logging.ERROR, service=service, tag=tag, why=str(error))
            return None


def _read(path: Path) -> dict[str, str]:
    """What `_keep` wrote, empty without a file."""
    try:
        document = json.loads(path.read_bytes())
        kept: dict[str, str] = document["kept"]
        if document["version"] == _VERSION and all(isinstance(value, str) for value in kept.values()):
            return kept
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise StateError(f"{path}: cannot be trusted; it was kept as it is. Move it away: mv {path} {path}.bad")


def _keep(path: Path, kept: dict[str, str]) -> None:
    """Make texts outlive this server. That they cannot be written is logged: a full disk must not stop a deployment."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps({"version": _VERSION, "kept": kept}).encode())
    except OSError as error:
        event(_LOG, "not kept", level=logging.ERROR, file=str(path), why=error.strerror)
