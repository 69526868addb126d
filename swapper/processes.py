"""Backends that are processes of this host: detached, each with a log of its own, found again by its record.

The child puts itself on record before it becomes the backend and waits for its parent's word: a command that is
killed in between leaves no process that nobody knows.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from swapper.backends import Backend, Records, lives
from swapper.errors import DeployError
from swapper.model import PortSet
from swapper.procfs import boot_id, started_ticks

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapper.model import Service
    from swapper.provision import Launch

__all__ = ["Processes"]

GO = b"g"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Processes:
    """The processes of one service; `folder` is the service's own."""

    def __init__(self, service: Service, folder: Path, *, say: Callable[[str], None]) -> None:
        self.name = service.name
        self.execution = service.recipe.execution
        self.records = Records(folder / "backends")
        self.log_folder = folder / "logs"
        self.say = say
        self._children: dict[int, str] = {}  # how each ended, "" while it runs: the kernel tells that once

    def find(self, port_set: PortSet) -> Backend | None:
        """What there is on a set, running or dead."""
        return self.records.read(port_set)

    def launch(self, launch: Launch) -> Backend:
        """Start the program on a set that has none. Raises DeployError, and leaves nothing behind."""
        self.log_folder.mkdir(parents=True, exist_ok=True)
        said_read, said_write = os.pipe()
        go_read, go_write = os.pipe()
        # A signal between here and the program would unwind a second command: it is for the first alone.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        child = os.fork()
        if child:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        else:
            os.close(said_read)
            os.close(go_write)
            self._become(launch, go_read, said_write)
        os.close(said_write)
        os.close(go_read)
        self._children[child] = ""
        with open(said_read, "rb", buffering=0) as said, open(go_write, "wb", buffering=0) as go:  # noqa: PTH123 - pipes
            if said.read(1) == GO:  # it is on record
                go.write(GO)
            failure = said.read().decode(errors="replace")  # ends when the program has taken the child's place
        if failure:
            self._reap(child)
            self.records.forget(launch.port_set)
            raise DeployError(f"{launch.command[0]} cannot be started: {failure}")
        backend = self.records.read(launch.port_set)
        if backend is None or backend.pid != child:
            raise DeployError(f"{launch.command[0]} ended before it was on record")
        return backend

    def death(self, backend: Backend) -> str:
        """How it ended, in words; "" while it runs."""
        if lives(backend):
            return ""
        return self._reap(backend.pid) or f"process {backend.pid} has ended"

    def health(self, backend: Backend) -> str:
        """A process has no HEALTHCHECK of its own: it is healthy while it runs."""
        return self.death(backend)

    def logs(self, port_set: PortSet, lines: int) -> str:
        """The last lines that it wrote; "" where there are none."""
        backend = self.records.read(port_set)
        if backend is None:
            return ""
        try:
            with self._log(port_set, backend.tag).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 65_536))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def confirm(self, backend: Backend) -> None:
        """Nothing: after a reboot `apply` starts it again."""

    def forget(self, tag: str) -> None:
        """Take away the logs of a release that is no longer kept."""
        for port_set in PortSet:
            self._log(port_set, tag).unlink(missing_ok=True)

    def stop(self, port_set: PortSet) -> bool:
        """Ask it to end, kill it and all of its session after the grace time, forget it; whether it ran."""
        backend = self.records.read(port_set)
        if backend is None:
            return False
        ran = self._end(backend)
        self._reap(backend.pid)
        for pid in self._left_behind(backend):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.records.forget(port_set)
        return ran

    def _end(self, backend: Backend) -> bool:
        try:
            process = os.pidfd_open(backend.pid)
        except ProcessLookupError:
            return False
        try:
            if not lives(backend):  # looked at after it was opened: the descriptor cannot mean another process
                return False
            number = signal.Signals[self.execution.stop_signal]
            signal.pidfd_send_signal(process, number)
            if not select.select([process], [], [], self.execution.stop_grace_s)[0]:
                self.say(f"process {backend.pid} did not end within {self.execution.stop_grace_s:.0f} s; killed")
            # It leads its session: what it started goes with it, and while one is left nobody else can get the number.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(backend.pid, signal.SIGKILL)
            select.select([process], [], [], 10)
        finally:
            os.close(process)
        return True

    def _left_behind(self, backend: Backend) -> list[int]:
        """What a backend that is dead has started and left running: its session, as its environment shows."""
        if backend.boot_id != boot_id():
            return []
        mark = f"SWAPPER_SERVICE={self.name}\0".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                session = int((path / "stat").read_text(errors="replace").rpartition(")")[2].split()[3])
                if session == backend.pid and mark in (path / "environ").read_bytes() + b"\0":
                    found.append(int(path.name))
        return found

    def _reap(self, pid: int) -> str:
        """How a child of this very command ended; "" for one that is not, or that still runs."""
        if self._children.get(pid) == "":
            with contextlib.suppress(ChildProcessError):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    self._children[pid] = _ended(os.waitstatus_to_exitcode(status))
        return self._children.get(pid, "")

    def _become(self, launch: Launch, go: int, said: int) -> NoReturn:
        """In the child: on record, then the program. Never returns."""
        try:
            os.setsid()
            os.set_inheritable(said, False)
            ticks = started_ticks(os.getpid()) or 0
            self.records.write(Backend(launch.port_set, launch.tag, os.getpid(), ticks, boot_id(), launch.targets))
            os.write(said, GO)
            if os.read(go, 1) != GO:  # the parent is dead: nobody wants this backend any more
                self.records.forget(launch.port_set)
                os._exit(1)
            log = os.open(self._log(launch.port_set, launch.tag), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((nothing, 0), (log, 1), (log, 2)):
                os.dup2(source, target)
            for number in (*ENDING, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            os.chdir(launch.files if launch.files.is_dir() else "/")
            if self.execution.user:
                user = pwd.getpwnam(self.execution.user)
                os.initgroups(user.pw_name, user.pw_gid)
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
            path = os.environ.get("PATH", os.defpath)
            os.execvpe(launch.command[0], launch.command, {"PATH": path, **launch.environment})  # noqa: S606 - no shell
        except BaseException as error:  # noqa: BLE001 - whatever went wrong is told through the pipe
            os.write(said, (str(error) or type(error).__name__).encode())
        finally:
            os._exit(127)

    def _log(self, port_set: PortSet, tag: str) -> Path:
        return self.log_folder / f"{port_set}-{tag}.log"


def _ended(code: int) -> str:
    return f"ended with exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
