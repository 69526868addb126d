"""Who lives in the network namespaces of a run: a process there keeps a namespace alive after its owner has gone."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["evict"]

GONE_WITHIN_S: Final = 5.0


def evict(namespaces: Iterable[int]) -> None:
    """Kill every process that lives in the network namespaces behind these descriptors, and wait until none does.

    The caller itself is left alone. Raises RuntimeError when some do not end.
    """
    inodes = {os.fstat(fd).st_ino for fd in namespaces}
    give_up_s = time.monotonic() + GONE_WITHIN_S
    while pids := _living_in(inodes):
        if time.monotonic() > give_up_s:
            raise RuntimeError(f"processes {', '.join(map(str, pids))} were killed and have not ended")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def _living_in(inodes: set[int]) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if (process / "ns/net").stat().st_ino in inodes:
                found.append(int(process.name))
    return [pid for pid in found if pid != os.getpid()]
