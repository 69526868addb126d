"""Who used this machine's processors: the bench itself, others, or the hypervisor."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.forks import Forks

__all__ = ["Reading", "Usage", "adopt_orphans", "at_rest", "between", "reading"]

PR_SET_CHILD_SUBREAPER: Final = 36
TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Reading:
    """Seconds of processor time, of all processors together, up to `at_s`."""

    at_s: float
    user: float
    busy: float  # neither idle nor stolen
    stolen: float
    own_user: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used within a time, as a mean number of processors.

    `others` is user time alone: kernels differ in whom they charge for the interrupts that the network works in
    (CONFIG_IRQ_TIME_ACCOUNTING), so the system time of others cannot be told from that of the bench's own traffic.
    """

    seconds: float
    busy: float
    others: float
    stolen: float
    load_1min: float


def adopt_orphans() -> None:
    """Let processes whose parent ends become this one's children, so that their time counts as its own."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reading() -> Reading:
    """The account of now; what a child or a worker used is in it once it was waited for."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, steal = (int(field) * TICK_S for field in file.readline().split()[1:9])
    own = resource.getrusage(resource.RUSAGE_SELF).ru_utime + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    return Reading(time.monotonic(), user + nice, user + nice + system + irq + softirq, steal, own + Forks.user_s)


def between(before: Reading, after: Reading) -> Usage:
    """What was used from one reading to the next."""
    seconds = after.at_s - before.at_s
    others = (after.user - before.user) - (after.own_user - before.own_user)
    return Usage(
        seconds=round(seconds, 3),
        busy=round((after.busy - before.busy) / seconds, 3),
        others=round(others / seconds, 3),
        stolen=round((after.stolen - before.stolen) / seconds, 3),
        load_1min=os.getloadavg()[0],
    )


def at_rest(seconds: float = 0.5) -> Usage:
    """What is used while this process does nothing: all of it by others."""
    before = reading()
    time.sleep(seconds)
    return between(before, reading())
