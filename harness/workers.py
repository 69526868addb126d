"""The owner's end of a worker process: start it, tell it, read its result.

A worker is `python -m harness.worker ROLE` in some namespace; it speaks JSON lines on its pipes.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Worker", "WorkerError"]

READY_WITHIN_S: Final = 60.0  # nobody meets it but a machine in trouble
_ROOT: Final = Path(__file__).resolve().parent.parent


class WorkerError(Exception):
    """A worker died, said nothing in time, or said what is no JSON."""


class Worker:
    """A running worker; as a context manager it is killed at the end of the block."""

    def __init__(self, process: subprocess.Popen[bytes], *, role: str, where: str) -> None:
        self.process = process
        self.role = role
        self.where = where
        self.ready: dict[str, Any] = {}
        self._pending = b""

    @classmethod
    def start(cls, role: str, spec: Mapping[str, Any], *, where: str, pass_fds: Sequence[int] = ()) -> Self:
        """Start a worker where the calling thread is; it inherits `pass_fds` under their numbers.

        Raises WorkerError where it died at once. `await_ready` tells when it can be used.
        """
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.worker", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            pass_fds=pass_fds,
        )
        worker = cls(process, role=role, where=where)
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
        try:
            _pipe(self.process.stdin).write(line.encode() + b"\n")
            _pipe(self.process.stdin).flush()
        except BrokenPipeError:
            raise WorkerError(self._obituary()) from None

    def go(self, t0_ns: int) -> None:
        """Start the schedule at `t0_ns`, CLOCK_REALTIME."""
        self.tell(f"go {t0_ns}")

    def offer(self, line: str) -> None:
        """Send one line, unless the worker has come to its end by itself."""
        try:
            os.write(_pipe(self.process.stdin).fileno(), line.encode() + b"\n")
        except BrokenPipeError:
            return  # its report is still there to be read

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
        _pipe(self.process.stdin).close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise WorkerError(f"{self.role} in {self.where} reported but did not end") from None
        self._close()
        return report

    def read(self, *, timeout_s: float) -> dict[str, Any]:
        """The next JSON line; WorkerError on death or silence."""
        deadline = time.monotonic() + timeout_s
        stdout = _pipe(self.process.stdout).fileno()
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                raise WorkerError(f"{self.role} in {self.where} said nothing for {timeout_s} s")
            chunk = os.read(stdout, 1 << 16)
            if not chunk:
                raise WorkerError(self._obituary())
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        report: dict[str, Any] = json.loads(line)
        return report

    def kill(self) -> None:
        """SIGKILL, as a crash would; safe to repeat."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._close()

    def _obituary(self) -> str:
        self.process.kill()
        self.process.wait()
        stderr = b"" if _pipe(self.process.stderr).closed else _pipe(self.process.stderr).read()
        text = stderr.decode(errors="replace").strip()
        return f"{self.role} in {self.where} died with {self.process.returncode}: {text or 'no message'}"

    def _close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise WorkerError("a worker was started without its pipes")
    return pipe
