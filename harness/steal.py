"""Time that the hypervisor took from a running thread, told from time that the thread lost by itself.

Standard library only.
"""

from __future__ import annotations

import os
import resource
import time
from typing import Final

__all__ = ["Steal"]

WORTH_A_LOOK_NS: Final = 100_000
TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Steal:
    """What was stolen from the thread that makes it, since `forget`; zero where the kernel cannot tell.

    Linux charges a thread nothing while its virtual CPU does not run (steal time: proc(5), /proc/stat). Where the
    thread did not sleep, what neither its CPU time nor its wait for a CPU accounts for went to the hypervisor.
    """

    def __init__(self) -> None:
        self.stolen_ns = 0
        self._claimed_ns = 0
        self._machine_ns = _machine_ns()
        self._schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        self._slept, self._waited_ns = self._away()
        self._now_ns, self._charged_ns = time.time_ns(), time.thread_time_ns()

    def look(self) -> int:
        """The time now, CLOCK_REALTIME ns, with `stolen_ns` brought up to it; to be called often."""
        # Whatever happens in between these readings is seen by the one before the clock and the one after it.
        before = self._away()
        now_ns, charged_ns = time.time_ns(), time.thread_time_ns()
        slept, waited_ns = self._away()
        missing_ns = now_ns - self._now_ns - (charged_ns - self._charged_ns) - (waited_ns - self._waited_ns)
        if missing_ns > WORTH_A_LOOK_NS and slept == self._slept:
            self.stolen_ns += missing_ns
            self._claimed_ns += missing_ns
        self._slept, self._waited_ns = before
        self._now_ns, self._charged_ns = now_ns, charged_ns
        return now_ns

    def is_credible(self) -> bool:
        """Whether the whole machine missed as much: else the kernel charges threads for less than this class believes.

        (CONFIG_IRQ_TIME_ACCOUNTING leaves out interrupts, and the network works in them.)
        """
        return self._claimed_ns <= _machine_ns() - self._machine_ns + TICK_NS

    def forget(self) -> None:
        """Count from here: whatever was stolen has been made up for."""
        self.stolen_ns = 0

    def _away(self) -> tuple[int, int]:
        """How often this thread slept (nvcsw, getrusage(2)), and how long it was ready without a CPU, in ns."""
        waited_ns = int(os.pread(self._schedstat, 96, 0).split()[1])
        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw, waited_ns


def _machine_ns() -> int:
    """What was stolen from all CPUs of this machine since boot, to the tick."""
    with open("/proc/stat", encoding="ascii") as file:  # noqa: PTH123 - one line of a long file
        return int(file.readline().split()[8]) * TICK_NS
