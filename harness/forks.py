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
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Forks", "forks"]

ANSWER_SIZE: Final = 256
_ROOT: Final = Path(__file__).resolve().parent.parent


class Forks:
    """The process that forks. It keeps the surroundings that it is made in: namespace, cores, folder, environment."""

    user_s: ClassVar[float] = 0.0  # of all workers that were reaped: getrusage(2) knows only of children

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._owner, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.fork", str(far.fileno())],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                pass_fds=[far.fileno()],
                process_group=0,  # Ctrl-C, before it could ignore that
            )

    def make(self, role: str, fds: Sequence[int]) -> int:
        """A new worker that inherits `fds`: standard input, output, error, its network namespace, and what it asks for.

        Its process id, which stays its own until it is reaped. Raises OSError where there cannot be another process,
        also where the one that forks has died.
        """
        return int(self._ordered({"role": role}, fds)["pid"])

    def reap(self, pid: int) -> int:
        """Await the end of a worker: its exit code, or minus the number of the signal that killed it.

        That of SIGKILL also where the process that forks has died, which alone could have told.
        """
        try:
            answer = self._ordered({"reap": pid}, ())
        except OSError:
            return -signal.SIGKILL
        Forks.user_s += answer["user_s"]
        return int(answer["exit_code"])

    def close(self) -> None:
        """End it, and whatever is left of its forks; safe to repeat."""
        with suppress(OSError):
            self._owner.shutdown(socket.SHUT_RDWR)  # closing is not enough where the owner has forked as well
        self._owner.close()
        self._process.wait()

    def _retire(self) -> None:
        self.close()
        forks.cache_clear()

    def _ordered(self, order: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        try:
            with self._turn:
                socket.send_fds(self._owner, [json.dumps(order).encode()], fds)
                message = self._owner.recv(ANSWER_SIZE)
        except BaseException:
            self._retire()  # the next order would get the answer of one that was interrupted
            raise
        if not message:
            self._retire()
            raise ConnectionResetError("the process that workers are forks of has died")
        answer: dict[str, Any] = json.loads(message)
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        return answer


@functools.cache
def forks() -> Forks:
    """Those of this process, made anew where they have died. Not to be made first in a namespace of a test."""
    made = Forks()
    atexit.register(made.close)
    return made
