"""Work in a forked child: what it does to itself, or dies of, does not touch this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

__all__ = ["CHILD_TIMEOUT_S", "in_child"]

CHILD_TIMEOUT_S = 20


def in_child(work: Callable[[], None]) -> str:
    """Run `work` in a forked child, for at most 20 s; what it said when it failed, "" when it did not."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(CHILD_TIMEOUT_S)  # also when nobody waits any more: the child holds this command's locks
            os.dup2(writing, 2)  # a library that ends the process says why on standard error before
            work()
            status = 0
        except BaseException as error:  # noqa: BLE001 - whatever went wrong is told through the pipe
            os.write(2, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor, not a path
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        said += f"the child was killed, or did not end within {CHILD_TIMEOUT_S} s"
    return (said or "the child failed without a word") if status else ""
