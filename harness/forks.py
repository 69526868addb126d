"""The owner's end of the process that workers are forks of."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Forks", "forks"]

ANSWER_SIZE: Final = 64
_ROOT: Final = Path(__file__).resolve().parent.parent


class Forks:
    """The process that forks; it lives where the calling thread does when this is made."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._owner, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.fork", str(far.fileno())],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                pass_fds=[far.fileno()],
            )

    def make(self, role: str, fds: Sequence[int]) -> int:
        """A new worker that inherits `fds`: standard input, output, error, its network namespace, and what it asks for.

        Its process id, which stays its own until it is reaped. Raises EOFError or OSError if the process that forks has
        died.
        """
        return self._ordered({"role": role}, fds)

    def reap(self, pid: int) -> int:
        """Await the end of a worker: its exit code, or minus the number of the signal that killed it."""
        try:
            return self._ordered({"reap": pid}, ())
        except (EOFError, OSError):
            return -signal.SIGKILL  # as all of them

    def close(self) -> None:
        """End it, and whatever is left of its forks."""
        self._owner.shutdown(socket.SHUT_RDWR)  # closing is not enough where the owner has forked as well
        self._owner.close()
        self._process.wait()

    def _ordered(self, order: dict[str, Any], fds: Sequence[int]) -> int:
        with self._turn:
            socket.send_fds(self._owner, [json.dumps(order).encode()], fds)
            answer = self._owner.recv(ANSWER_SIZE)
        if not answer:
            raise EOFError("the process that workers are forks of has died")
        return int(answer)


@functools.cache
def forks() -> Forks:
    """Those of this process, for as long as it lives."""
    made = Forks()
    atexit.register(made.close)
    return made
