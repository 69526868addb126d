"""The owner's end of a worker process: start it, tell it, read its result.

A worker is a fork in some namespace that plays one role; it speaks JSON lines on its pipes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING, Any, Final, Self

from harness.forks import forks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.forks import Forks

__all__ = ["Worker", "WorkerError"]

READY_WITHIN_S: Final = 60.0  # nobody meets it but a machine in trouble
ENDED_WITHIN_S: Final = 30.0  # after its report, or SIGKILL


class WorkerError(Exception):
    """A worker died, said nothing in time, or said what is no JSON."""


class Worker:
    """A running worker; as a context manager it is killed at the end of the block."""

    def __init__(
        self, made_by: Forks, pid: int, pidfd: int, pipes: tuple[IO[bytes], IO[bytes], IO[bytes]], role: str, where: str
    ) -> None:
        self.pid = pid
        self.role = role
        self.where = where
        self.ready: dict[str, Any] = {}
        self._forks = made_by
        self._died = f"{role} in {where} has ended"
        self._exit_code: int | None = None
        self._pidfd = pidfd
        self._stdin, self._stdout, self._stderr = pipes
        self._pending = b""

    @classmethod
    def start(
        cls, role: str, spec: Mapping[str, Any], *, where: str, namespace: int | None = None, fds: Sequence[int] = ()
    ) -> Self:
        """Start a worker in the network namespace of a descriptor, or where the calling thread is.

        It finds copies of `fds` under this name in its spec. Raises WorkerError where it died at once. `await_ready`
        tells when it can be used.
        """
        with ExitStack() as unless_made:
            here = os.open("/proc/thread-self/ns/net", os.O_RDONLY) if namespace is None else os.dup(namespace)
            (spec_from, told), (heard, said_to), (error_from, error_to) = (os.pipe() for _ in range(3))
            theirs = (spec_from, said_to, error_to, here)
            stdin = unless_made.enter_context(os.fdopen(told, "wb"))
            stdout = unless_made.enter_context(os.fdopen(heard, "rb", buffering=0))
            stderr = unless_made.enter_context(os.fdopen(error_from, "rb", buffering=0))
            try:
                made_by = forks()
                pid = made_by.make(role, [*theirs, *fds])
                pidfd = os.pidfd_open(pid)
            except OSError as error:
                raise WorkerError(f"no {role} could be started in {where}: {error}") from error
            finally:
                for fd in theirs:
                    os.close(fd)
            unless_made.pop_all()
        worker = cls(made_by, pid, pidfd, (stdin, stdout, stderr), role, where)
        try:
            worker.tell(json.dumps(spec))
        except BaseException:
            worker.kill()
            raise
        return worker

    def await_ready(self) -> Self:
        """Await `{"ready": true}`, and keep what else it says in `ready`; WorkerError if it does not come."""
        try:
            self.ready = self.read(timeout_s=READY_WITHIN_S)
        except BaseException:
            self.kill()
            raise
        return self

    def tell(self, line: str) -> None:
        """Send one line; WorkerError if the worker is gone."""
        self._check()
        try:
            self._stdin.write(line.encode() + b"\n")
            self._stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._obituary()) from None

    def go(self, t0_ns: int) -> None:
        """Start the schedule at `t0_ns`, CLOCK_REALTIME."""
        self.tell(f"go {t0_ns}")

    def offer(self, line: str) -> None:
        """Send one line, unless the worker has come to its end by itself."""
        self._check()
        with suppress(BrokenPipeError):  # its report is still there to be read
            os.write(self._stdin.fileno(), line.encode() + b"\n")

    def pause(self, duration_ms: int) -> None:
        """Have the worker read nothing for `duration_ms`; its socket buffers fill meanwhile."""
        self.tell(f"pause {duration_ms}")

    def stop(self, *, timeout_s: float = 60) -> dict[str, Any]:
        """End it in good order; its final report. WorkerError if there is none in time."""
        self.tell("stop")
        return self.result(timeout_s=timeout_s)

    def result(self, *, timeout_s: float) -> dict[str, Any]:
        """Await the final report and the end of the process; WorkerError if they do not come."""
        report = self.read(timeout_s=timeout_s)
        self._stdin.close()
        if not self._ends(ENDED_WITHIN_S):
            self.kill()
            raise WorkerError(f"{self.role} in {self.where} reported but did not end")
        self._bury()
        return report

    def read(self, *, timeout_s: float) -> dict[str, Any]:
        """The next JSON line; WorkerError on death or silence."""
        self._check()
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._stdout], [], [], left)[0]:
                raise WorkerError(f"{self.role} in {self.where} said nothing for {timeout_s} s")
            chunk = os.read(self._stdout.fileno(), 1 << 16)
            if not chunk:
                raise WorkerError(self._obituary())
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        report: dict[str, Any] = json.loads(line)
        return report

    def kill(self) -> None:
        """SIGKILL, as a crash would; safe to repeat."""
        if self._exit_code is None:
            self._strike()
            self._bury()

    def _strike(self) -> None:
        with suppress(ProcessLookupError):  # it died with what it is a fork of
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _obituary(self) -> str:
        self._strike()
        text = self._stderr.read().decode(errors="replace").strip()
        self._bury()
        self._died = f"{self.role} in {self.where} died with {self._exit_code}: {text or 'no message'}"
        return self._died

    def _check(self) -> None:
        if self._exit_code is not None:
            raise WorkerError(self._died)

    def _ends(self, within_s: float) -> bool:
        return bool(select.select([self._pidfd], [], [], within_s)[0])

    def _bury(self) -> None:
        """Await its end; what is left of it goes."""
        self._ends(ENDED_WITHIN_S)  # also where nobody is left to reap it
        self._exit_code = self._forks.reap(self.pid)
        os.close(self._pidfd)
        for pipe in (self._stdin, self._stdout, self._stderr):
            with suppress(BrokenPipeError):
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
