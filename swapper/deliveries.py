"""What the webhook server has to know after a restart: deliveries it has seen, and releases that wait or were begun."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from swapper.errors import ConfigError, KernelRefusedError, LockedError, StateError, UnhealthyError
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
_FINAL = (0, ConfigError.exit_code, UnhealthyError.exit_code)
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

    @property
    def is_final(self) -> bool:
        """Whether the same delivery would only come to the same end: done, unhealthy, or wrongly configured."""
        return self.exit_code in _FINAL

    def document(self) -> dict[str, Any]:
        """The values and the result, for logs and `/status`."""
        return asdict(self) | {"duration_s": round(self.duration_s, 3), "result": self.result}


@dataclass(frozen=True, slots=True)
class Running:
    """A deployment under way."""

    tag: str
    since_s: float  # on the queue's clock
    began_at: float  # Unix time


class Seen:
    """The last 10,000 deliveries that were acted upon: their ids, and the tags that they deployed."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier server kept. Raises StateError for a file that cannot be trusted."""
        self._path = path
        self._tags, _ = _read(path)  # by id, the oldest first

    def __contains__(self, delivery: str) -> bool:
        """Whether that delivery is remembered."""
        return delivery in self._tags

    def add(self, delivery: str, tag: str) -> None:
        """Remember one more, and forget the oldest where they are too many."""
        self._tags[delivery] = tag
        if len(self._tags) > REMEMBERED:
            del self._tags[next(iter(self._tags))]
        _keep(self._path, self._tags)

    def forget(self, tag: str) -> None:
        """Forget the deliveries that deployed `tag`, so that GitHub may deliver them again."""
        kept = {delivery: deployed for delivery, deployed in self._tags.items() if deployed != tag}
        if len(kept) < len(self._tags):
            self._tags = kept
            _keep(self._path, kept)


class Queue:
    """At most one deployment of a service runs and at most one release waits for it: a newer one replaces that.

    The file names, for each service, the release that it has yet to come to: the one that waits, else the one whose
    deployment runs, until that has ended. So neither a killed server nor a reboot loses a release.
    """

    def __init__(
        self,
        path: Path,
        *,
        deploy: Callable[[str, str], Awaitable[int]],
        finished: Callable[[Outcome], None],
        clock_s: Callable[[], float],
        is_settled: Callable[[str, float], Awaitable[bool]],
        retry_s: float = RETRY_S,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        """Read what an earlier server left; `deploy` is given service and tag and answers an exit code.

        A deployment that an earlier server began is begun again, unless `is_settled`, given the service and the Unix
        time of its begin, says that it or a later one has come to an end since. Raises StateError for a file that
        cannot be trusted.
        """
        self._path = path
        self._deploy, self._finished, self._is_settled = deploy, finished, is_settled
        self._clock_s, self._unix_s, self._retry_s = clock_s, unix_s, retry_s
        self._workers: dict[str, asyncio.Task[None]] = {}
        self.waiting, self._begun = _read(path)  # by service: tags, and when an earlier server began to deploy them
        self.running: dict[str, Running] = {}
        self.last: dict[str, Outcome] = {}

    def start(self, services: Collection[str]) -> None:
        """Take up what an earlier server left to these services, drop what it left to any other."""
        for service, tag in list(self.waiting.items()):
            if service in services:
                self._wake(service)
            else:
                self._drop(service)
                event(_LOG, "dropped", level=logging.WARNING, service=service, tag=tag, why="not configured any more")

    def put(self, services: Iterable[str], tag: str) -> None:
        """Let each service be deployed with `tag`, once what runs there has ended."""
        for service in services:
            event(_LOG, "queued", service=service, tag=tag, replaces=self.waiting.get(service))
            self.waiting[service] = tag
            self._begun.pop(service, None)
            self._wake(service)
        self._remember()

    async def stop(self) -> None:
        """Begin nothing more. What waits or runs is in the file for the next server; what runs ends by itself."""
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
            "waiting": dict(self.waiting),
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
        try:
            while service in self.waiting:
                if await self._is_needless(service):
                    continue
                outcome = await self._deploy_next(service)
                if outcome.result == "locked":
                    await asyncio.sleep(self._retry_s)
        finally:
            del self._workers[service]

    async def _is_needless(self, service: str) -> bool:
        """Drop what waits if an earlier server began it and it has come to an end since."""
        began_at = self._begun.get(service)
        if began_at is None or not await self._is_settled(service, began_at):
            return False
        if service not in self._begun:  # a newer release came meanwhile
            return False
        event(_LOG, "ended meanwhile", service=service, tag=self.waiting[service])
        self._drop(service)
        return True

    async def _deploy_next(self, service: str) -> Outcome:
        began_at = self._begun.pop(service, None)
        tag = self.waiting.pop(service)
        running = self.running[service] = Running(tag, self._clock_s(), began_at or self._unix_s())
        try:
            self._remember()
            event(_LOG, "deployment started", service=service, tag=tag)
            exit_code = await self._exit_code(service, tag)
        finally:
            del self.running[service]
        outcome = Outcome(service, tag, exit_code, self._clock_s() - running.since_s)
        self.last[service] = outcome
        if outcome.result == "locked" and service not in self.waiting:
            self.waiting[service] = tag
            if began_at:
                self._begun[service] = began_at
        self._remember()
        level = logging.INFO if outcome.result == "done" else logging.ERROR
        event(_LOG, "deployment ended", level=level, **outcome.document())
        self._finished(outcome)
        return outcome

    async def _exit_code(self, service: str, tag: str) -> int | None:
        try:
            return await self._deploy(service, tag)
        except Exception as error:  # noqa: BLE001 - whatever it was, the next release must not wait for ever
            why = str(error) or type(error).__name__
            event(_LOG, "deployment not started", level=logging.ERROR, service=service, tag=tag, why=why)
            return None

    def _drop(self, service: str) -> None:
        del self.waiting[service]
        self._begun.pop(service, None)
        self._remember()

    def _remember(self) -> None:
        running = {service: one for service, one in self.running.items() if service not in self.waiting}
        tags = self.waiting | {service: one.tag for service, one in running.items()}
        _keep(self._path, tags, self._begun | {service: one.began_at for service, one in running.items()})


def _read(path: Path) -> tuple[dict[str, str], dict[str, float]]:
    """What `_keep` wrote, empty without a file."""
    try:
        document = json.loads(path.read_bytes())
        kept: dict[str, str] = document["kept"]
        begun: dict[str, float] = document.get("begun", {})
        texts = all(isinstance(value, str) for value in kept.values())
        times = all(name in kept and isinstance(value, float) for name, value in begun.items())
        if document["version"] == _VERSION and texts and times:
            return kept, begun
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise StateError(f"{path}: cannot be trusted; it was kept as it is. Move it away: mv {path} {path}.bad")


def _keep(path: Path, kept: dict[str, str], begun: dict[str, float] | None = None) -> None:
    """Make texts outlive this server. That they cannot be written is logged: a full disk must not stop a deployment."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps({"version": _VERSION, "kept": kept, "begun": begun or {}}).encode())
    except OSError as error:
        event(_LOG, "not kept", level=logging.ERROR, file=str(path), why=error.strerror)
