"""Locks that die with their holder and what it left running: flock on files in the run folder.

What they protect is not known here.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from swapper.errors import LockedError, MissingError
from swapper.procfs import started_ticks

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Holder", "file_lock", "held", "service_lock", "table_lock"]

_TABLE_WAIT_S = 10.0
_POLL_S = 0.01
_INTRODUCTION_S = 0.25  # how long a new holder may take to write who it is
_held: set[int] = set()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock. `since` is Unix time; `booted_s` and `started_ticks` count from boot."""

    pid: int
    command: str
    since: float
    booted_s: float
    started_ticks: int

    def __str__(self) -> str:
        """The sentence that a person who has to wait needs."""
        since = datetime.fromtimestamp(self.since).astimezone().isoformat(timespec="seconds")
        age_s = int(time.clock_gettime(time.CLOCK_BOOTTIME) - self.booted_s)
        return f"process {self.pid} ({self.command}) since {since}, {age_s} s ago"


@contextmanager
def service_lock(run_dir: Path, name: str, command: str) -> Iterator[None]:
    """Hold the lock of service `name` in `run_dir`, as `command`.

    Raises LockedError at once if another holds it (who, since when), MissingError if it cannot be made.
    """
    with file_lock(run_dir / f"{name}.lock", command=command, wait_s=0):
        yield


@contextmanager
def table_lock(run_dir: Path) -> Iterator[None]:
    """Hold the lock of what all services share, waiting up to 10 s.

    Raises LockedError if another still holds it then, MissingError if it cannot be made.
    """
    with file_lock(run_dir / ".table.lock", command=_own_command(), wait_s=_TABLE_WAIT_S):
        yield


@contextmanager
def file_lock(path: Path, *, command: str | None = None, wait_s: float) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, made if missing, waiting up to `wait_s` seconds.

    Raises LockedError if another still holds it then, MissingError if it cannot be made.
    """
    fd = _acquire(path, wait_s)
    _held.add(fd)
    try:
        try:
            _introduce(fd, command or _own_command())
        except OSError as error:
            msg = f"{path}: the lock cannot be written: {error.strerror}"
            raise MissingError(msg) from error
        yield
    finally:
        _held.discard(fd)
        # Emptied before it is let go of, so that a file with content means: held, or its holder was killed.
        try:
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)


def held() -> tuple[int, ...]:
    """Descriptors of the locks that this process holds.

    A program that inherits them keeps the locks until it has ended, even when this process is killed before.
    """
    return tuple(_held)


def _acquire(path: Path, wait_s: float) -> int:
    start = time.monotonic()
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, fd):
                os.ftruncate(fd, 0)  # what the one before wrote is not said of this holder
                return fd
        except BlockingIOError:
            waited_s = time.monotonic() - start
            holder = _holder(fd)
            alive = holder is not None and started_ticks(holder.pid) == holder.started_ticks
            if waited_s >= wait_s and (alive or waited_s >= wait_s + _INTRODUCTION_S):
                os.close(fd)
                shown = "a process that has not yet written who it is"
                if holder:
                    shown = str(holder) if alive else f"what was left running by {holder}, which was killed"
                waited = f"; waited {wait_s:.0f} s" if wait_s else ""
                msg = f"{path} is held by {shown}{waited}; try again when it has ended"
                raise LockedError(msg) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        time.sleep(_POLL_S)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # 0600, since whoever can open the file can also hold the lock.
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        command = shlex.join(["sudo", *_own_arguments()])
        msg = f"{path}: the lock cannot be made: {error.strerror}; run as root: {command}"
        raise MissingError(msg) from error


def _is_still(path: Path, fd: int) -> bool:
    """Whether nobody removed or replaced the file between open and flock."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _introduce(fd: int, command: str) -> None:
    holder = Holder(
        pid=os.getpid(),
        command=command,
        since=time.time(),
        booted_s=time.clock_gettime(time.CLOCK_BOOTTIME),
        started_ticks=started_ticks(os.getpid()) or 0,
    )
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(asdict(holder)).encode() + b"\n", 0)


def _holder(fd: int) -> Holder | None:
    """Who last wrote the file: the holder, or, for a moment, the one before."""
    try:
        return Holder(**json.loads(os.pread(fd, 65536, 0)))
    except (ValueError, TypeError):
        return None


def _own_arguments() -> list[str]:
    return [Path(sys.argv[0]).name or "swapper", *sys.argv[1:]]


def _own_command() -> str:
    return shlex.join(_own_arguments())
